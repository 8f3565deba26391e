package stage1

import (
	"strings"
	"time"
)

// kernelTime reads when a kernel was made out of what uname(2) calls its
// version, in seconds since 1970: "#1 SMP Debian 6.1.192-2 (2026-08-30)", or
// with the date as date(1) writes it in UTC at the end. It is 0 where there is
// none. No clock that is before it can be right.
func kernelTime(version string) int64 {
	if open := strings.LastIndexByte(version, '('); open >= 0 {
		if day, ok := strings.CutSuffix(version[open+1:], ")"); ok {
			if t, err := time.Parse(time.DateOnly, day); err == nil {
				return plausible(t)
			}
		}
	}
	words := strings.Fields(version)
	const dateWords = 6 // Sun Aug 30 12:00:00 UTC 2026
	if len(words) < dateWords {
		return 0
	}
	t, err := time.Parse("Mon Jan 2 15:04:05 UTC 2006", strings.Join(words[len(words)-dateWords:], " "))
	if err != nil {
		return 0
	}
	return plausible(t)
}

// plausible takes away a constant that reproducible builds write, and what would
// make every certificate look expired.
func plausible(t time.Time) int64 {
	if t.Year() < 2000 || t.Year() >= 2100 {
		return 0
	}
	return t.Unix()
}
