package rows

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	tests := []struct {
		in   []float64
		want float64
	}{
		{[]float64{3}, 3},
		{[]float64{9, 1, 2}, 2},
		{[]float64{4, 1, 3, 2}, 2.5},
	}
	for _, tt := range tests {
		in := append([]float64(nil), tt.in...)
		if got := Median(in); got != tt.want {
			t.Errorf("Median(%v) = %v; want %v", tt.in, got, tt.want)
		}
		if diff := cmp.Diff(tt.in, in); diff != "" {
			t.Errorf("Median changed its argument (-want +got):\n%s", diff)
		}
	}
}

func TestRowsSurviveJSON(t *testing.T) {
	want := []Row{
		New("alone", 1.5, "s"),
		New("limited", 9, "s").AtMost(8),
		New("compared", 1, "s").Beside("mksquashfs", 2).RatioAtMost(1),
		New("faster", 3, "MB/s").Beside("curl", 2).RatioAtLeast(0.95),
		New("no peer, so no ratio to limit", 1, "s").RatioAtMost(1),
	}
	var buf strings.Builder
	if err := WriteJSON(&buf, want); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(buf.String(), `"peer": null`) {
		t.Errorf("a row without a peer must have a null peer:\n%s", buf.String())
	}
	got, err := ReadJSON(strings.NewReader(buf.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestWriteTable(t *testing.T) {
	var buf strings.Builder
	err := WriteTable(&buf, []Row{
		New("a", 0.123, "s").AtMost(1),
		New("longer", 12.34, "MB").Beside("peer", 6.17).RatioAtMost(1),
		New("whole", 3, "files"),
		New("rate", 1, "MB/s").Beside("p", 2).RatioAtLeast(0.8),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `| figure | value   | peer          | ratio | target  | met |
| ------ | ------- | ------------- | ----- | ------- | --- |
| a      | 0.12 s  |               |       | <= 1 s  | yes |
| longer | 12.3 MB | peer: 6.17 MB | 2.00x | <= 1x   | no  |
| whole  | 3 files |               |       |         |     |
| rate   | 1 MB/s  | p: 2 MB/s     | 0.50x | >= 0.8x | no  |
`
	if diff := cmp.Diff(want, buf.String()); diff != "" {
		t.Errorf("WriteTable (-want +got):\n%s", diff)
	}
}
