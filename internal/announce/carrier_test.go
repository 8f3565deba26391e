package announce

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFile(t *testing.T) {
	t.Parallel()
	if got, err := FileName("Stable._xnode.fleet.example.org."); err != nil || got != owner+".txt" {
		t.Errorf("FileName = %q, %v", got, err)
	}
	if _, err := FileName("../x"); err == nil {
		t.Error("a file name with a slash is made")
	}
	text := signed(t, example(), 1).Text()
	for _, data := range []string{text, text + "\n", text + "\r\n", "\n" + text + "\n\n"} {
		texts, err := FileTexts([]byte(data))
		if diff := cmp.Diff([]string{text}, texts); err != nil || diff != "" {
			t.Errorf("FileTexts(%q): %v (-want +got):\n%s", data, err, diff)
		}
		if _, _, err := Choose(owner, texts, signers(t)); err != nil {
			t.Errorf("FileTexts(%q): %v", data, err)
		}
	}
	if _, err := FileTexts([]byte(strings.Repeat("x", maxFile+1))); err == nil {
		t.Error("a file of more than 4 KiB is read")
	}
}

// TestGitIsNoWayRound: where DNS is blocked, git brings the same records under
// the same rules: a halted release stays halted, an expired one expired.
func TestGitIsNoWayRound(t *testing.T) {
	t.Parallel()
	open := example()
	halted := example()
	halted.Published++
	halted.Halted = true
	have := signed(t, halted, 1)
	clock := Clock{Now: time.Unix(have.Published+60, 0), Synchronised: true}
	judge := func(file string) (*Record, error) {
		texts, err := FileTexts([]byte(file))
		if err != nil {
			return nil, err
		}
		r, by, err := Choose(owner, texts, signers(t))
		if err != nil {
			return nil, err
		}
		if err := r.Fresh(by, clock); err != nil {
			return nil, err
		}
		_, err = Admit(have, 0, r)
		return r, err
	}
	if r, err := judge(have.Text() + "\n"); err != nil || !r.Halted {
		t.Errorf("the halted record from git: %v, %v", r, err)
	}
	var order *OrderError
	if _, err := judge(signed(t, open, 1).Text() + "\n"); !errors.As(err, &order) || order.Order != Replay {
		t.Errorf("the record before the halt: %v; want a replay", err)
	}
	var none *NoneError
	if _, err := judge(have.Text() + "\n" + signed(t, open, 1).Text() + "\n"); !errors.As(err, &none) || len(none.Valid) != 2 {
		t.Errorf("both in one file: %v; want none", err)
	}
	clock.Now = time.Unix(have.Expires+1, 0)
	var expired *ExpiredError
	if _, err := judge(have.Text()); !errors.As(err, &expired) {
		t.Errorf("after its time: %v; want it expired", err)
	}
}
