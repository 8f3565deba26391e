package main

import (
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	const pass = `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    noise\n"}
{"Action":"pass","Package":"p","Test":"TestA","Elapsed":3}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t3.0s\n"}
{"Action":"pass","Package":"p","Elapsed":3}
`
	tests := []struct {
		name, in string
		ok       bool
		want     []string
		not      []string
	}{
		{
			name: "all pass", in: pass, ok: true,
			want: []string{"ok  \tp\t3.0s", "slow:    3.0 s  p TestA", "1 passed, 0 failed, 0 skipped"},
			not:  []string{"noise", "PASS\n"},
		},
		{
			name: "a failure shows its output",
			in: pass + `{"Action":"run","Package":"q","Test":"TestB"}
{"Action":"output","Package":"q","Test":"TestB","Output":"    b_test.go:3: broken\n"}
{"Action":"fail","Package":"q","Test":"TestB"}
{"Action":"output","Package":"q","Output":"FAIL\tq\t0.1s\n"}
{"Action":"fail","Package":"q"}
`,
			want: []string{"b_test.go:3: broken", "FAIL\tq", "1 passed, 1 failed, 0 skipped"},
		},
		{
			name: "a skip is a failure",
			in: pass + `{"Action":"run","Package":"q","Test":"TestB"}
{"Action":"output","Package":"q","Test":"TestB","Output":"    b_test.go:3: no qemu\n"}
{"Action":"skip","Package":"q","Test":"TestB"}
{"Action":"pass","Package":"q"}
`,
			want: []string{"no qemu", "1 passed, 0 failed, 1 skipped"},
		},
		{
			name: "a build that breaks",
			in: pass + `{"ImportPath":"q","Action":"build-output","Output":"q/x.go:1: syntax error\n"}
{"ImportPath":"q","Action":"build-fail"}
{"Action":"output","Package":"q","Output":"FAIL\tq [build failed]\n"}
{"Action":"fail","Package":"q"}
`,
			want: []string{"syntax error", "[build failed]", "broke off: 1", "1 passed, 1 failed, 0 skipped"},
		},
		{
			name: "a panic shows the test that ran",
			in: `{"Action":"run","Package":"q","Test":"TestB"}
{"Action":"output","Package":"q","Test":"TestB","Output":"panic: oh\n"}
{"Action":"fail","Package":"q"}
`,
			want: []string{"panic: oh", "0 passed, 1 failed, 0 skipped"},
		},
		{name: "nothing ran", in: "", want: []string{"0 passed, 0 failed, 0 skipped"}},
		{name: "words of the go command", in: pass + "go: warning\n", ok: true, want: []string{"go: warning"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			r := newReport(&out, false)
			if err := r.read(strings.NewReader(tt.in)); err != nil {
				t.Fatal(err)
			}
			if ok := r.close(); ok != tt.ok {
				t.Errorf("close() = %v; want %v", ok, tt.ok)
			}
			for _, want := range tt.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("output lacks %q:\n%s", want, out.String())
				}
			}
			for _, not := range tt.not {
				if strings.Contains(out.String(), not) {
					t.Errorf("output has %q:\n%s", not, out.String())
				}
			}
		})
	}
}

func TestReportVerbose(t *testing.T) {
	var out strings.Builder
	r := newReport(&out, true)
	in := `{"Action":"pass","Package":"p","Test":"TestA","Elapsed":3}
{"Action":"pass","Package":"p","Test":"TestA/sub","Elapsed":3}
`
	if err := r.read(strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), "--- PASS: TestA (3.0s)\n"; got != want {
		t.Errorf("output = %q; want %q", got, want)
	}
}
