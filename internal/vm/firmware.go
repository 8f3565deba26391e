package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrNoOVMF says that no UEFI firmware was found on this host.
var ErrNoOVMF = errors.New("no OVMF firmware found")

// ovmfPlaces are where distributions put OVMF: code and the template of its
// variables, the larger 4 MiB build first.
func ovmfPlaces() [][2]string {
	return [][2]string{
		{"OVMF/OVMF_CODE_4M.fd", "OVMF/OVMF_VARS_4M.fd"},                 // Debian, Ubuntu
		{"OVMF/OVMF_CODE.fd", "OVMF/OVMF_VARS.fd"},                       // older Debian
		{"edk2/ovmf/OVMF_CODE.fd", "edk2/ovmf/OVMF_VARS.fd"},             // Fedora
		{"edk2/x64/OVMF_CODE.4m.fd", "edk2/x64/OVMF_VARS.4m.fd"},         // Arch
		{"edk2-ovmf/x64/OVMF_CODE.fd", "edk2-ovmf/x64/OVMF_VARS.fd"},     // older Arch
		{"qemu/ovmf-x86_64-4m-code.bin", "qemu/ovmf-x86_64-4m-vars.bin"}, // SUSE
		{"qemu/edk2-x86_64-code.fd", "qemu/edk2-i386-vars.fd"},           // QEMU's own
	}
}

// FindOVMF returns the firmware below share ("/usr/share" on a normal host),
// or, where code is not empty, that file with the variables beside it.
func FindOVMF(share, code string) (OVMF, error) {
	if code != "" {
		return ovmfBeside(code)
	}
	for _, p := range ovmfPlaces() {
		o := OVMF{Code: filepath.Join(share, p[0]), Vars: filepath.Join(share, p[1])}
		if isFile(o.Code) && isFile(o.Vars) {
			return o, nil
		}
	}
	return OVMF{}, fmt.Errorf("%w below %q", ErrNoOVMF, share)
}

// ovmfBeside finds the variables that belong to a code image: distributions
// name the two alike but for one word.
func ovmfBeside(code string) (OVMF, error) {
	if _, err := os.Stat(code); err != nil {
		return OVMF{}, fmt.Errorf("OVMF code: %w", err)
	}
	dir, base := filepath.Split(code)
	for _, r := range []*strings.Replacer{
		strings.NewReplacer("CODE", "VARS"),
		strings.NewReplacer("code", "vars"),
		strings.NewReplacer("x86_64-code", "i386-vars"),
	} {
		vars := r.Replace(base)
		if vars != base && isFile(dir+vars) {
			return OVMF{Code: code, Vars: dir + vars}, nil
		}
	}
	return OVMF{}, fmt.Errorf("%w: no template of variables (OVMF_VARS*) beside %q", ErrNoOVMF, code)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode()&fs.ModeType == 0
}
