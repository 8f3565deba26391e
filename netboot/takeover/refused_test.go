package takeover

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestRefusedVerdict prints, as --dry-run --json does, what is said of an old
// system on which everything is wrong at once. Nothing is tried on its kernel.
func TestRefusedVerdict(t *testing.T) {
	t.Parallel()
	root := soundRoot()
	opt := testOptions(t, root)
	opt.Process = Process{EUID: 1000, Machine: "aarch64", Release: "6.1.0"}
	opt.Lost = []Loss{{"bond0 (bond) with 192.0.2.5/24: a bond is not carried yet", true}}
	for name, text := range map[string]string{
		"proc/meminfo":                          "MemTotal: 131072 kB\nMemAvailable: 1000 kB\n",
		"proc/self/status":                      "CapEff:\t0000000000000000\n",
		"proc/sys/kernel/kexec_load_disabled":   "1\n",
		"run/systemd/container":                 "systemd-nspawn\n",
		"sys/hypervisor/type":                   "xen\n",
		"sys/hypervisor/guest_type":             "PV\n",
		"sys/kernel/kexec_loaded":               "1\n",
		"sys/kernel/security/lockdown":          "none [integrity] confidentiality\n",
		"sys/devices/pci0000:00/0000:00:03.0/x": "",
		pciVirtio + "/virtio0/modalias":         "pci:v00008086d0000100E\n",
		"sys/bus/virtio/drivers/virtio_net/x":   "",
		"etc/machine-id":                        "0123456789abcdef0123456789abcdef\n",
		"root/.ssh/authorized_keys":             "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHcNcb3iCdGy3WoG0EH9mOXBk/F5MtRaZtAzW0xb/qEv ada\n",
	} {
		root[name] = file(text)
	}
	delete(root, pciVirtio+"/virtio0/driver")
	src := testSource(t, nil)
	src.Kernel = []byte("kernal")
	k := &fakeKernel{}
	plan, err := prepare(t.Context(), src, opt, k, plainMemory)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.load(); err == nil || k.loaded != "" || k.tried > 0 {
		t.Errorf("load = %v, loaded by %q after %d trials; want a refusal and none", err, k.loaded, k.tried)
	}
	got, err := json.MarshalIndent(plan.Verdict, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := plan.Verdict.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	for _, c := range plan.Verdict.Checks {
		if c.Status == Fail && c.Remedy == "" {
			t.Errorf("check %q fails without a remedy: %s", c.Name, c.Text)
		}
	}
	for name, data := range map[string][]byte{"testdata/refused.json": append(got, '\n'), "testdata/refused.txt": text.Bytes()} {
		if *update {
			if err := os.WriteFile(name, data, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(data)); diff != "" {
			t.Errorf("%s (-want +got; go test -update writes it anew):\n%s", name, diff)
		}
	}
}
