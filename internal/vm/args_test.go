package vm

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestArgs(t *testing.T) {
	ovmf := OVMF{Code: "/usr/share/OVMF/OVMF_CODE_4M.fd", Vars: "/usr/share/OVMF/OVMF_VARS_4M.fd"}
	for _, tt := range []struct {
		name    string
		machine Machine
	}{
		{"iso_cd_bios", Machine{Drives: []Drive{{File: "out/x.iso", As: CD}}}},
		{"iso_disk_uefi", Machine{
			Firmware: UEFI, OVMF: ovmf, MemoryMiB: 384,
			Drives: []Drive{{File: "out/a,b.iso", As: Disk, Snapshot: true}},
			Nets:   []Net{{Kind: UserNet, Isolated: true, Forwards: []Forward{{Host: 40022, Guest: 22}}}},
		}},
		{"usb_kvm", Machine{
			Accel: KVM, Reboot: KeepOnReboot,
			Drives: []Drive{{File: "x.iso", As: USB, Snapshot: true}, {File: "y.img", As: USB}},
		}},
		{"every_drive", Machine{
			Firmware: UEFI, OVMF: OVMF{Code: "c.fd", Vars: "v.fd", KeepVars: true},
			Drives: []Drive{
				{File: "a.img", As: Disk, Serial: "one"}, {File: "b.qcow2", Format: "qcow2", As: NVMe},
				{File: "c.img", As: SATA, ReadOnly: true}, {File: "d.iso", As: CD},
			},
		}},
		{"kernel_wires", Machine{
			Kernel: "vmlinuz", Initrd: "initrd", Append: "console=ttyS0 ip=dhcp", CPUs: 1,
			Nets: []Net{
				{Kind: WireNet, MAC: "52:54:00:00:00:01"},
				{Kind: UserNet, PXE: true, BootFile: "http://10.0.2.2:8080/a,b/boot.ipxe"},
				{Kind: WireNet, Model: "e1000e"},
			},
			Extra: []string{"-boot", "n"},
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.machine.Validate(); err != nil {
				t.Fatalf("Validate() = %v; want nil", err)
			}
			got := strings.Join(tt.machine.Args(), "\n") + "\n"
			golden := filepath.Join("testdata", "args", tt.name+".golden")
			if *update {
				if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("Args() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestValidateNamesWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name    string
		machine Machine
		want    string
	}{
		{"accel", Machine{Accel: "xen"}, `accel is "xen"`},
		{"firmware", Machine{Firmware: "efi"}, `firmware is "efi"`},
		{"uefi without ovmf", Machine{Firmware: UEFI}, "OVMF code or variables are not set"},
		{"board", Machine{Board: "microvm"}, `board is "microvm"`},
		{"memory", Machine{MemoryMiB: -1}, "memory is -1 MiB"},
		{"append alone", Machine{Append: "quiet"}, "without a kernel"},
		{"drive kind", Machine{Drives: []Drive{{File: "x", As: "floppy"}}}, `drive 0: attached as "floppy"`},
		{"drive file", Machine{Drives: []Drive{{File: "x", As: CD}, {As: CD}}}, "drive 1: no file"},
		{"net kind", Machine{Nets: []Net{{Kind: "tap"}}}, `network card 0: kind is "tap"`},
		{"wire forward", Machine{Nets: []Net{{Kind: WireNet, Isolated: true}}}, "a wire has neither"},
		{"wire boot file", Machine{Nets: []Net{{Kind: WireNet, BootFile: "x"}}}, "a wire has neither"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.machine.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Validate() = %v; want an error with %q", err, tt.want)
			}
		})
	}
}

func TestShellLineIsReadBackByAShell(t *testing.T) {
	argv := []string{"printf", `%s\n`, "plain", "", "two words", "it's", "a$b`c`\\", "x;y|z>&", "a,,b=c", "ümlaut", "line\nfeed"}
	out, err := exec.CommandContext(t.Context(), "sh", "-c", ShellLine(argv)).Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join(argv[2:], "\n") + "\n"
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Errorf("sh printed (-want +got):\n%s", diff)
	}
}

func TestFindOVMF(t *testing.T) {
	share := t.TempDir()
	put := func(name string) string {
		path := filepath.Join(share, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if _, err := FindOVMF(share, ""); err == nil || !strings.Contains(err.Error(), "no OVMF firmware found") {
		t.Errorf("FindOVMF(empty) = %v; want ErrNoOVMF", err)
	}
	oldCode, oldVars := put("OVMF/OVMF_CODE.fd"), put("OVMF/OVMF_VARS.fd")
	put("OVMF/OVMF_CODE_4M.fd") // without its variables: not usable
	got, err := FindOVMF(share, "")
	if want := (OVMF{Code: oldCode, Vars: oldVars}); err != nil || got != want {
		t.Errorf("FindOVMF() = %v, %v; want %v", got, err, want)
	}
	mine, mineVars := put("my/edk2-x86_64-code.fd"), put("my/edk2-i386-vars.fd")
	got, err = FindOVMF(share, mine)
	if want := (OVMF{Code: mine, Vars: mineVars}); err != nil || got != want {
		t.Errorf("FindOVMF(%q) = %v, %v; want %v", mine, got, err, want)
	}
	if _, err := FindOVMF(share, filepath.Join(share, "absent.fd")); err == nil {
		t.Error("FindOVMF(absent file) = nil; want an error")
	}
	if _, err := FindOVMF(share, put("lonely/OVMF_CODE.fd")); err == nil || !strings.Contains(err.Error(), "no template of variables") {
		t.Errorf("FindOVMF(code alone) = %v; want an error about the variables", err)
	}
}
