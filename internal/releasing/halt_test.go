package releasing_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/releasing"
)

// A halt is for the moment in which things are broken: a remote that cannot be
// reached, or takes no push, must not keep it from the nodes.
func TestHaltsWithoutARemote(t *testing.T) {
	for _, tt := range []struct {
		name string
		cut  func(t *testing.T, w *fleetWorld) (mend func())
	}{
		{"away", func(_ *testing.T, w *fleetWorld) func() { return moveAway(w.first) }},
		{"push refused", func(t *testing.T, w *fleetWorld) func() {
			hook := filepath.Join(w.first, "hooks", "pre-receive")
			writeFile(t, hook, "#!/bin/sh\nexit 1\n", 0o755)
			return func() {
				if err := os.Remove(hook); err != nil {
					t.Error(err)
				}
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newFleet(t)
			w.release(t)
			mend := tt.cut(t, w)
			r, err := releasing.ChangeRecord(t.Context(), w.options, releasing.Halt)
			if err == nil || !strings.Contains(err.Error(), "run the same command again") {
				t.Errorf("Halt = %v; want it to say what is left to do", err)
			}
			record, parseErr := announce.Parse(git(t, w.second, "cat-file", "blob", "announce:"+owner+".txt"))
			if parseErr != nil || !record.Halted {
				t.Errorf("the other remote announces %v, %v; want the halt", record, parseErr)
			}
			if !strings.Contains(done(r), "dns") {
				t.Errorf("it did %q; want DNS as well", done(r))
			}
			// Everything else waits for all remotes.
			if _, err := releasing.ChangeRecord(t.Context(), w.options, releasing.Resume); err == nil {
				t.Error("a halt was ended although a remote would not hear of it")
			}
			mend()
			w.checkNode(t, w.first, w.change(t, releasing.Halt))
		})
	}
}
