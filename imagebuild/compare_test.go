package imagebuild

import "testing"

func TestFirstDifference(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{
		{"", "", -1}, {"abc", "abc", -1}, {"abc", "abd", 2}, {"abc", "ab", 2}, {"ab", "abc", 2}, {"", "a", 0}, {"xbc", "a", 0},
	} {
		if got := firstDifference([]byte(tt.a), []byte(tt.b)); got != tt.want {
			t.Errorf("firstDifference(%q, %q) = %d; want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
