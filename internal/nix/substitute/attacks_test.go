package substitute_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/narinfo"
)

// attack is a cache that lies about the path "big" (or in another way) and what
// must come of it.
type attack struct {
	name  string
	twist func(t *testing.T, o *origin) twister
	// kind is the fault that the cache must be blamed for.
	kind mirror.FaultKind
}

func pack(t *testing.T, data []byte, opts ...zstd.EOption) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(data, nil)
}

// body answers the NAR of big with bytes.
func body(o *origin, t *testing.T, data []byte) twister {
	url := "/" + o.info(t, "big").URL
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != url {
			return false
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		return true
	}
}

// packed is the honest NAR file of big.
func packed(t *testing.T, o *origin) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(o.dir, o.info(t, "big").URL))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func unpacked(t *testing.T, o *origin) []byte {
	t.Helper()
	dec, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer dec.Close()
	data, err := dec.DecodeAll(packed(t, o), nil)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// says answers the narinfo of big, changed and perhaps signed anew.
func says(o *origin, t *testing.T, key *nix.CacheKey, change func(*narinfo.Info)) twister {
	info := o.info(t, "big")
	change(info)
	if key != nil {
		info.Sigs = []narinfo.Signature{narinfo.Sign(info.PathInfo(), key)}
	}
	text := info.Encode()
	return func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != "/"+narinfo.Name(info.Path) {
			return false
		}
		_, _ = w.Write(text)
		return true
	}
}

type twister = func(http.ResponseWriter, *http.Request) bool

func both(a, b twister) twister {
	return func(w http.ResponseWriter, r *http.Request) bool { return a(w, r) || b(w, r) }
}

// of answers with f where the path has the suffix.
func of(suffix string, f http.HandlerFunc) func(*testing.T, *origin) twister {
	return func(*testing.T, *origin) twister {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, suffix) {
				f(w, r)
				return true
			}
			return false
		}
	}
}

func attacks() []attack {
	return []attack{
		{"closure list of another digest", func(t *testing.T, o *origin) twister {
			other, err := nix.NewClosureList([]nix.PathInfo{o.want("lib")})
			if err != nil {
				t.Fatal(err)
			}
			return of(".closure", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(other.Encode()) })(t, o)
		}, cache.WrongList},
		{"endless closure list", of(".closure", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}), cache.TooLarge},
		{"endless narinfo", of(".narinfo", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(bytes.Repeat([]byte("X: y\n"), 1<<16)); err != nil {
					return
				}
			}
		}), cache.TooLarge},
		{"NAR bomb: 1 GiB of zeros behind the NAR", func(t *testing.T, o *origin) twister {
			var out bytes.Buffer
			enc, err := zstd.NewWriter(&out, zstd.WithWindowSize(1<<20))
			if err != nil {
				t.Fatal(err)
			}
			zeros := make([]byte, 1<<20)
			for _, part := range append([][]byte{unpacked(t, o)}, slicesOf(zeros, 1024)...) {
				if _, err := enc.Write(part); err != nil {
					t.Fatal(err)
				}
			}
			if err := enc.Close(); err != nil {
				t.Fatal(err)
			}
			return body(o, t, out.Bytes())
		}, cache.TooLarge},
		{"NAR that wants 512 MiB to unpack", func(t *testing.T, o *origin) twister {
			// RFC 8878: no single segment, window descriptor exponent 19: 2^29.
			return body(o, t, append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0, 19 << 3}, make([]byte, 100)...))
		}, cache.TooLarge},
		{"endless empty frames", func(t *testing.T, o *origin) twister {
			return body(o, t, bytes.Repeat(pack(t, nil, zstd.WithZeroFrames(true)), 1<<20))
		}, cache.TooLarge},
		{"bytes behind the last frame", func(t *testing.T, o *origin) twister {
			return body(o, t, append(packed(t, o), "tail"...))
		}, mirror.WrongFile},
		{"path traversal in the NAR's URL", func(t *testing.T, o *origin) twister {
			return says(o, t, o.key, func(i *narinfo.Info) { i.URL = "nar/../../../../etc/hostname" })
		}, cache.WrongInfo},
		{"NAR on another host", func(t *testing.T, o *origin) twister {
			return says(o, t, o.key, func(i *narinfo.Info) { i.URL = "http://127.0.0.1:1/x.nar" })
		}, cache.WrongInfo},
		{"path traversal in the NAR", func(t *testing.T, o *origin) twister {
			data := bytes.Replace(unpacked(t, o), word("data"), word("../x"), 1)
			return body(o, t, pack(t, data))
		}, mirror.WrongBytes},
		{"reference outside of the closure", func(t *testing.T, o *origin) twister {
			return says(o, t, o.key, func(i *narinfo.Info) {
				i.References = append(i.References, nix.StoreDir+"/"+strings.Repeat("z", 32)+"-outside")
			})
		}, cache.WrongInfo},
		{"stolen cache key: other NAR, signed well", func(t *testing.T, o *origin) twister {
			data := unpacked(t, o)
			data[len(data)/2] ^= 1
			return both(body(o, t, pack(t, data)), says(o, t, o.key, func(i *narinfo.Info) { i.NarHash = nix.HashOf(data) }))
		}, cache.WrongInfo},
		{"stolen cache key: narinfo honest, NAR not", func(t *testing.T, o *origin) twister {
			data := unpacked(t, o)
			data[len(data)/2] ^= 1
			return body(o, t, pack(t, data))
		}, mirror.WrongBytes},
		{"unsigned", func(t *testing.T, o *origin) twister {
			return says(o, t, nil, func(i *narinfo.Info) { i.Sigs = nil })
		}, cache.Unsigned},
		{"signed by another key of that name", func(t *testing.T, o *origin) twister {
			forger, err := nix.GenerateCacheKey(o.key.Name)
			if err != nil {
				t.Fatal(err)
			}
			return says(o, t, forger, func(*narinfo.Info) {})
		}, cache.Unsigned},
		{"corrupt NAR", func(t *testing.T, o *origin) twister {
			data := packed(t, o)
			data[len(data)/2] ^= 1
			return body(o, t, data)
		}, mirror.WrongFile},
		{"truncated NAR", func(t *testing.T, o *origin) twister {
			data := packed(t, o)
			return body(o, t, data[:len(data)/2])
		}, mirror.WrongFile},
		{"NAR of another path", func(t *testing.T, o *origin) twister {
			data, err := os.ReadFile(filepath.Join(o.dir, o.info(t, "lib").URL))
			if err != nil {
				t.Fatal(err)
			}
			return body(o, t, data)
		}, mirror.WrongFile},
		{"narinfo names a NAR that is not there", func(t *testing.T, o *origin) twister {
			return says(o, t, nil, func(i *narinfo.Info) { i.URL = "nar/none.nar.zst" })
		}, mirror.WrongFile},
		{"narinfo lies about the NAR's size", func(t *testing.T, o *origin) twister {
			return says(o, t, o.key, func(i *narinfo.Info) { i.NarSize-- })
		}, cache.WrongInfo},
		{"compression that we do not read", func(t *testing.T, o *origin) twister {
			return says(o, t, nil, func(i *narinfo.Info) { i.Compression = "bzip2" })
		}, cache.Unsupported},
		{"Content-Length too large", of(".nar.zst", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "999999")
			_, _ = io.WriteString(w, "short")
		}), mirror.CutOff},
		{"gzip that nobody asked for", of(".nar.zst", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(make([]byte, 1000))
			_ = z.Close()
		}), mirror.Encoded},
		{"redirect in a loop", of(".narinfo", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path, http.StatusFound)
		}), mirror.Redirected},
		{"redirect to a file of the node", of(".narinfo", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}), mirror.Redirected},
		{"one byte a second", of(".nar.zst", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write([]byte{0x28}); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(time.Second):
				case <-r.Context().Done():
				}
			}
		}), mirror.Stalled},
		{"accepts and never answers", of(".closure", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), mirror.Stalled},
		{"always busy", of("", func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "later", http.StatusServiceUnavailable)
		}), mirror.Busy},
	}
}

func slicesOf(p []byte, n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = p
	}
	return all
}

func word(text string) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(text)))
	b = append(b, text...)
	return append(b, make([]byte, -len(text)&7)...)
}
