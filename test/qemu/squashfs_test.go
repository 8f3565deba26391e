package qemu

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"xnodeos.org/imagebuild/squashfs"
	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/vm"
	"xnodeos.org/nixos/pocket"
	"xnodeos.org/test/qemu/guest/squashhash/treesum"
)

// TestBootSquashfsMount lets a real kernel mount an image and read all of it.
// unsquashfs, which the tests of the package use, is more patient than the
// kernel: it does not use the index of a long folder, for one.
func TestBootSquashfsMount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tree")
	growSquashfsTree(t, dir)
	want, err := treesum.Of(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	kernel, modules := pocketKernel(t)
	initrd := squashfsInitrd(t, modules)
	blockSizes := []int{squashfs.DefaultBlockSize}
	if os.Getenv("XNODE_FULL") == "1" {
		blockSizes = append(blockSizes, squashfs.MinBlockSize, squashfs.MaxBlockSize)
	}
	for _, blockSize := range blockSizes {
		t.Run(fmt.Sprint(blockSize), func(t *testing.T) {
			image := filepath.Join(t.TempDir(), "image.squashfs")
			writeSquashfs(t, image, dir, squashfs.Options{BlockSize: blockSize})
			got := bootSquashhash(t, kernel, initrd, image)
			if got != want.String() {
				t.Errorf("the guest sees %s, the host %s", got, want)
			}
		})
	}
}

func writeSquashfs(t *testing.T, image, dir string, opt squashfs.Options) {
	t.Helper()
	src, err := squashfs.Tree(dir)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := squashfs.Write(t.Context(), f, src, opt); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// growSquashfsTree makes what is hard for a reader: sizes around the borders of
// blocks of any length, a folder whose listing has many blocks, names of any
// bytes, a file beyond 4 GiB, duplicates, zeros, deep folders.
func growSquashfsTree(t *testing.T, dir string) {
	t.Helper()
	put := func(name string, data []byte) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	text := bytes.Repeat([]byte("a line that compresses well, 0123456789\n"), 60_000)
	random := make([]byte, len(text))
	state := uint64(1)
	for i := range random {
		state = state*6364136223846793005 + 1442695040888963407
		random[i] = byte(state >> 56)
	}
	for _, border := range []int{0, 4 << 10, 8 << 10, 128 << 10, 256 << 10, 1 << 20, 2 << 20} {
		for size := max(0, border-1); size <= border+1; size++ {
			put(fmt.Sprintf("text/%d", size), text[:size])
			put(fmt.Sprintf("random/%d", size), random[:size])
			put(fmt.Sprintf("twice/%d", size), random[:size])
			put(fmt.Sprintf("zeros/%d", size), make([]byte, size))
		}
	}
	for i := range 3000 {
		put(fmt.Sprintf("many/%s-%x", strings.Repeat("n", 10+i%50), i*7919), text[:i%97])
	}
	put(strings.Repeat("deep/", 300)+"leaf", []byte("leaf"))
	put("names/"+strings.Repeat("n", 255), nil)
	for b := 1; b < 256; b++ {
		if b != '/' && b != '.' {
			put("names/"+string([]byte{byte(b)}), []byte{byte(b)})
		}
	}
	big := filepath.Join(dir, "big")
	put("big", []byte("begin"))
	if err := os.Chmod(big, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(big, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for at, text := range map[int64]string{4<<30 - 3: "border", 4200 << 20: "end"} {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "text/4096", "dangling": "/none/\xff", "long": strings.Repeat("x/", 2000)} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "empty"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// pocketKernel returns the kernel of the pocket system and the folder of its
// modules.
func pocketKernel(t *testing.T) (kernel, modules string) {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	system, store, err := pocket.Build(t.Context(), pocket.Options{
		Cache: filepath.Join(cache, "xnodeos"),
		Log:   func(line string) { t.Log(line) },
	})
	if err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]*string{"kernel": &kernel, "kernel-modules": &modules} {
		path, err := store.Follow(string(system) + "/" + link)
		if err != nil {
			t.Fatal(err)
		}
		*target = store.Physical(path)
	}
	versions, err := filepath.Glob(filepath.Join(modules, "lib/modules/*"))
	if err != nil || len(versions) != 1 {
		t.Fatalf("modules of %s: %q, %v", system, versions, err)
	}
	return kernel, versions[0]
}

// squashfsInitrd makes an initramfs of the guest program and those of the
// modules that it loads.
func squashfsInitrd(t *testing.T, modules string) string {
	t.Helper()
	init := filepath.Join(t.TempDir(), "init")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", init, "./guest/squashhash")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the guest's init: %v\n%s", err, out)
	}
	index, err := kmod.Open(os.DirFS(modules))
	if err != nil {
		t.Fatal(err)
	}
	mods, err := index.Resolve("virtio_pci", "virtio_blk", "squashfs")
	if err != nil {
		t.Fatal(err)
	}
	files := index.WriteSubset(mods)
	for _, m := range mods {
		data, err := os.ReadFile(filepath.Join(modules, m.Path))
		if err != nil {
			t.Fatal(err)
		}
		if files[m.UncompressedPath()], err = kmod.Decompress(m.Path, data); err != nil {
			t.Fatal(err)
		}
	}
	var archive bytes.Buffer
	w := cpio.NewWriter(&archive)
	note := func(e error) {
		if err == nil {
			err = e
		}
	}
	program, err := os.ReadFile(init)
	note(err)
	note(w.File("init", 0o755, int64(len(program)), bytes.NewReader(program)))
	note(w.Device("dev/console", cpio.TypeChar|0o600, 5, 1))
	for name, data := range files {
		note(w.File(filepath.Join("lib/modules", filepath.Base(modules), name), 0o644, int64(len(data)), bytes.NewReader(data)))
	}
	note(w.Close())
	name := filepath.Join(t.TempDir(), "initrd")
	note(os.WriteFile(name, archive.Bytes(), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// bootSquashhash boots the guest with the image as its disk and returns the
// sum that it prints.
func bootSquashhash(t *testing.T, kernel, initrd, image string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 180*time.Second)
	defer cancel()
	machine, err := vm.Start(ctx, vm.Machine{
		MemoryMiB: 384, Kernel: kernel, Initrd: initrd,
		Append: "console=ttyS0 panic=-1 no_timer_check quiet",
		Drives: []vm.Drive{{File: image, As: vm.Disk, ReadOnly: true}},
	}, vm.Options{Now: time.Now})
	if err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	line, err := machine.Expect(ctx, vm.Regexp(regexp.MustCompile(`squashhash: (sum|error)`)))
	if err != nil {
		tail := machine.Tail(40)
		t.Fatalf("%v; the console ended with\n%s", err, strings.Join(tail, "\n"))
	}
	if exit := machine.Wait(); exit.Cause != vm.PoweredOff {
		t.Errorf("the guest ended as %v, want powered off", exit)
	}
	_, sum, ok := strings.Cut(line.Text, "squashhash: sum ")
	if !ok {
		t.Fatalf("the guest says %q", line.Text)
	}
	return sum
}
