package state

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFloors(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files    map[string]string
		want     Floors
		sequence uint32
		notes    []string
	}{
		"nothing": {nil, Floors{}, 0, nil},
		"all": {map[string]string{acceptedFile: `{"sequence":1042,"published":1795180800,"record":"v=xnode1"}`, timeFile: "1795180800\n", bootedFile: "1040\n"},
			Floors{Time: 1795180800, Accepted: 1042, Booted: 1040}, 1040, nil},
		"never booted an image":  {map[string]string{acceptedFile: `{"s":7}`}, Floors{Accepted: 7}, 7, nil},
		"never accepted":         {map[string]string{bootedFile: "9\n"}, Floors{Booted: 9}, 0, nil},
		"image ahead of records": {map[string]string{acceptedFile: `{"s":7}`, bootedFile: "9\n"}, Floors{Accepted: 7, Booted: 9}, 7, nil},
		"broken": {map[string]string{acceptedFile: `{"s":-1}`, timeFile: "soon\n", bootedFile: "4294967296\n"}, Floors{}, 0,
			[]string{acceptedFile, timeFile, bootedFile}},
		"far future": {map[string]string{timeFile: "99999999999\n"}, Floors{}, 0, []string{timeFile}},
		"signs":      {map[string]string{timeFile: "+5\n", acceptedFile: `{"t":5}`}, Floors{}, 0, []string{acceptedFile, timeFile}},
		"empty":      {map[string]string{timeFile: "", acceptedFile: ""}, Floors{}, 0, []string{acceptedFile, timeFile}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for file, text := range tt.files {
				full := filepath.Join(dir, file)
				if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(full, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, notes := ReadFloors(dir)
			if got != tt.want || got.Sequence() != tt.sequence || len(notes) != len(tt.notes) {
				t.Fatalf("ReadFloors = %+v, sequence %d, notes %q; want %+v, %d, %d notes", got, got.Sequence(), notes, tt.want, tt.sequence, len(tt.notes))
			}
			for i, file := range tt.notes {
				if !strings.HasPrefix(notes[i], file) {
					t.Errorf("note %q; want it about %s", notes[i], file)
				}
			}
		})
	}
}

func TestWriteBooted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, step := range []struct{ sequence, want uint32 }{{0, 0}, {5, 5}, {3, 5}, {6, 6}} {
		before, _ := ReadFloors(dir)
		if err := WriteBooted(dir, before, step.sequence); err != nil {
			t.Fatal(err)
		}
		after, notes := ReadFloors(dir)
		if after.Booted != step.want || len(notes) > 0 {
			t.Errorf("after %d: %+v, %q; want %d", step.sequence, after, notes, step.want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, acceptedFile)); err == nil {
		t.Error("the applier's file was made")
	}
}

func FuzzReadFloors(f *testing.F) {
	f.Add(`{"sequence":1}`, "1\n")
	f.Add(`{"s":4294967296}`, "")
	f.Add(`[]`, "-0\n")
	dir := f.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "applier"), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, accepted, when string) {
		for file, text := range map[string]string{acceptedFile: accepted, timeFile: when} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got, _ := ReadFloors(dir); got.Time < 0 || got.Time > maxTime {
			t.Errorf("ReadFloors = %+v", got)
		}
	})
}
