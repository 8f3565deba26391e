package imagebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/sshsign"
)

// Inspect takes an artifact apart and checks every byte that a loader, the
// kernel or the first stage reads. What is wrong with the artifact stands in
// Report.Problems; the error is for what could not be looked at: no such file,
// no artifact of ours, ctx ended.
func Inspect(ctx context.Context, path string, progress Progress) (*Report, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() && isNetbootFile(filepath.Base(path)) {
		path = filepath.Dir(path)
		if info, err = os.Stat(path); err != nil {
			return nil, err
		}
	}
	report := &Report{Path: path, Problems: []string{}, Parts: []ReportPart{}, NodeConfig: []string{}}
	switch {
	case info.IsDir():
		report.Kind = string(Netboot)
		err = inspectNetboot(ctx, path, report, progress)
	case startsWith(path, 0, "MZ"): // as every PE file; an ISO has boot code there
		report.Kind = string(UKI)
		err = inspectUKI(ctx, path, report)
	case startsWith(path, 0, "\x7fELF"):
		report.Kind = string(Takeover)
		err = inspectTakeover(ctx, path, report, progress)
	case startsWith(path, 512, "EFI PART") && !startsWith(path, 16*2048, "\x01CD001"):
		report.Kind = string(Raw)
		err = inspectRaw(ctx, path, report, progress)
	default:
		report.Kind = string(ISO)
		err = inspectISO(ctx, path, report, progress)
	}
	if err == nil {
		err = ctx.Err()
	}
	return report, err
}

// startsWith looks for a signature at a place of the file.
func startsWith(path string, at int64, signature string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close() // only read
	have := make([]byte, len(signature))
	_, err = f.ReadAt(have, at)
	return err == nil && string(have) == signature
}

// isNetbootFile lets a person name any file of the tree.
func isNetbootFile(name string) bool {
	return name == manifestFileName+signatureSuffix || slices.Contains(netbootFiles(true), name)
}

// checkManifest parses the manifest and fills the report's head.
func checkManifest(raw []byte, report *Report) *manifest.Manifest {
	report.Manifest = manifest.DigestOf(raw)
	m, err := manifest.Parse(raw)
	if err != nil {
		report.problem("%s: %v", manifestFileName, err)
		return nil
	}
	report.Label, report.System = m.Label, m.System
	report.Sequence, report.Time, report.Cmdline = m.Sequence, m.Time, m.Cmdline
	again, err := m.Encode()
	if err != nil || !bytes.Equal(again, raw) {
		report.problem("%s: is not in the canonical encoding", manifestFileName)
	}
	return m
}

// checkKernel holds the kernel against the manifest.
func checkKernel(ctx context.Context, m *manifest.Manifest, where string, kernel []byte, report *Report) {
	if err := m.Kernel.Verify(ctx, bytes.NewReader(kernel)); err != nil {
		report.problem("%s: %v", where, err)
		return
	}
	report.part(where, int64(len(kernel)), "sha256:%s", m.Kernel.SHA256)
}

// checkInitrd holds the initrd against the manifest, and its second part, the
// node config, against its own hashes and its canonical form.
func checkInitrd(ctx context.Context, m *manifest.Manifest, where string, initrd []byte, report *Report) {
	if int64(len(initrd)) < m.Initrd.Size {
		report.problem("%s: has %d bytes, the manifest says %d", where, len(initrd), m.Initrd.Size)
		return
	}
	base, node := initrd[:m.Initrd.Size], initrd[m.Initrd.Size:]
	if err := m.Initrd.Verify(ctx, bytes.NewReader(base)); err != nil {
		report.problem("%s: %v", where, err)
	} else {
		report.part(where, int64(len(base)), "sha256:%s", m.Initrd.SHA256)
	}
	if len(node) == 0 {
		return
	}
	config, err := nodeconfig.ReadCPIO(bytes.NewReader(node))
	if err != nil {
		report.problem("%s: node config: %v", where, err)
		return
	}
	var again bytes.Buffer
	if err := config.WriteCPIO(&again); err != nil {
		report.problem("%s: node config: %v", where, err)
	} else if i := firstDifference(again.Bytes(), node); i >= 0 {
		report.problem("%s: node config: is not in the canonical form (byte %d)", where, m.Initrd.Size+int64(i))
	}
	report.NodeConfig = config.Names()
	report.part(where+" (node config)", int64(len(node)), "%d files", len(report.NodeConfig))
}

// checkPayload holds the payload against the manifest.
func checkPayload(ctx context.Context, m *manifest.Manifest, where string, payload io.ReaderAt, report *Report, progress Progress) error {
	stage := progress.Start("check payload", m.Payload.Size)
	err := m.Payload.Verify(ctx, payload, stage.Set)
	stage.End(err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		report.problem("%s: %v", where, err)
		return nil
	}
	report.part(where, m.Payload.Size, "%d chunks, sha256:%s", len(m.Payload.Chunks), m.Payload.SHA256)
	return nil
}

// checkDerived compares a file with what its parts derive to.
func checkDerived(where string, have io.Reader, write func(io.Writer) error, report *Report) error {
	err := compareStream(have, write)
	if diff, ok := asDiff(err); ok {
		report.problem("%s: %v from what its parts derive to", where, diff)
		return nil
	}
	return err
}

// inspectNetboot checks the folder that an HTTP server serves.
func inspectNetboot(ctx context.Context, dir string, report *Report, progress Progress) error {
	raw, err := os.ReadFile(filepath.Join(dir, manifestFileName))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s has no %s: it is no netboot tree", dir, manifestFileName)
	} else if err != nil {
		return err
	}
	m := checkManifest(raw, report)
	if m == nil {
		return nil
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			report.problem("%v", err)
		}
		report.Size += int64(len(data))
		return data
	}
	report.Size = int64(len(raw))
	report.part(manifestFileName, int64(len(raw)), "%s", report.Manifest)
	checkSignature(filepath.Join(dir, manifestFileName+signatureSuffix), raw, report)
	checkKernel(ctx, m, manifestKernelName, read(manifestKernelName), report)
	checkInitrd(ctx, m, manifestInitrdName, read(manifestInitrdName), report)
	script := read(bootScriptName)
	return inspectNetbootPayload(ctx, dir, m, raw, script, report, progress)
}

// checkSignature holds the manifest against the signature beside it, if there
// is one.
func checkSignature(path string, raw []byte, report *Report) {
	name := filepath.Base(path)
	armored, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return
	} else if err != nil {
		report.problem("%v", err)
		return
	}
	key, err := sshsign.Verify(manifestNamespace, raw, armored)
	if err != nil {
		report.problem("%s: %v", name, err)
		return
	}
	report.Size += int64(len(armored))
	report.Signer = key.Fingerprint()
	report.part(name, int64(len(armored)), "signed by %s", report.Signer)
}

func inspectNetbootPayload(ctx context.Context, dir string, m *manifest.Manifest, raw, script []byte, report *Report, progress Progress) error {
	payload, err := os.Open(filepath.Join(dir, manifestPayloadName))
	if err != nil {
		report.problem("%v", err)
		return nil
	}
	defer payload.Close() // only read
	if err := checkPayload(ctx, m, manifestPayloadName, payload, report, progress); err != nil {
		return err
	}
	report.Size += m.Payload.Size
	embedded := false
	if archive, err := os.Open(filepath.Join(dir, payloadCPIOName)); err == nil {
		defer archive.Close() // only read
		embedded = true
		err := checkDerived(payloadCPIOName, archive, func(w io.Writer) error {
			return writePayloadCPIO(w, raw, io.NewSectionReader(payload, 0, m.Payload.Size), m.Payload.Size)
		}, report)
		if err != nil {
			report.problem("%s: %v", payloadCPIOName, err)
		}
		if info, err := archive.Stat(); err == nil {
			report.Size += info.Size()
			report.part(payloadCPIOName, info.Size(), "payload and manifest as a second initrd")
		}
	}
	want := bootIPXE(m.Label, cmdlineWithManifest(m.Cmdline, report.Manifest), embedded)
	if string(script) != want {
		report.problem("%s: is not what the manifest derives to", bootScriptName)
		return nil
	}
	report.part(bootScriptName, int64(len(script)), "names manifest %s", report.Manifest)
	return nil
}
