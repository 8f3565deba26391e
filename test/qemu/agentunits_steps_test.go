package qemu

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// agentSteps are the steps of guest/agentunits in no order, and what each has
// to say: a regular expression over the JSON of "got", and of the error.
var agentSteps = map[string]struct{ got, err string }{
	"service exit 0":        {`"ended: exit code 0"`, ""},
	"service exit 4":        {`"ended: exit code 4"`, ""},
	"service exit 100":      {`"ended: exit code 100"`, ""},
	"service signal 9":      {`"ended: signal 9 \(killed\)"`, ""},
	"service signal 15":     {`"ended: signal 15 \(terminated\)"`, ""},
	"service signal 6":      {`"ended: signal 6 \(aborted\)"`, ""},
	"service missing":       {`"ended: exit code 203"`, ""},
	"service timeout":       {`"ended: timeout"`, ""},
	"service words":         {`"ended: exit code 0"`, ""},
	"service forgotten":     {`"gone: gone"`, ""},
	"service remembered":    {`\["ended: exit code 7",\["/bin/sh","-c","sleep 1; exit 7"\]\]`, ""},
	"service failed":        {`\[{"Name":"agentunits-kept.service","How":"failed"}\]`, ""},
	"service forget":        {"", ""},
	"service forgotten too": {"null", ""},
	"service forget again":  {"", ""},
	"service cancelled":     {`\[true,"gone: gone"\]`, ""},
	"service killed":        {`"ended: signal 9 \(killed\)"`, ""},
	"service confined":      {`\["ended: exit code 0",true\]`, ""},
	"service greedy":        {`"ended: (oom-kill|exit code 137)"`, ""},

	"alarm armed":          {`"armed"`, ""},
	"alarm twice":          {"true", ""},
	"alarm fired":          {`"fired"`, ""},
	"alarm disarmed late":  {`"fired"`, ""},
	"alarm gone":           {`"gone"`, ""},
	"alarm again":          {"", ""},
	"alarm disarmed":       {`"armed"`, ""},
	"alarm silent":         {"true", ""},
	"alarm disarmed again": {`"gone"`, ""},

	"alarm not put off": {`\[true,"fired"\]`, ""},

	"manager state":    {`"running"`, ""},
	"manager watchdog": {`"20s"`, ""},
	"manager failed":   {"null", ""},
	"manager main pid": {"true", ""},
	"manager no pid":   {"0", ""},
	"manager restart":  {"", "not found"},

	"baseline":             {"{}", ""},
	"compare two":          {`\["","",""\]`, ""},
	"compare prepare-root": {`\["","",""\]`, ""},
	"dead man":             {"", ""},
	"dead man untouched":   {`"armed"`, ""},
	"sleeper":              {"", ""},
	"sleeper untouched":    {`"running"`, ""},

	"two":          {activated, ""},
	"two exam":     {`\[\]`, ""},
	"two greeting": {`"Hello from the second generation\\n"`, ""},
	"two gone":     {"true", ""},
	"activation":   {failedBy("exit code 2", true), ""},
	"unit":         {failedBy("exit code 4", true, "pocket-broken.service failed"), ""},
	"agent":        {failedBy("exit code 4", true, "xnode-.* (failed|auto-restart)"), ""},
	"agent exam":   {`\["agent: .*xnode-follow.service.*`, ""},
	"exit-100":     {`{"verdict":"needs reboot","result":"exit code 100","current":true}`, ""},
	"signal-9":     {failedBy(`signal 9 \(killed\)`, true), ""},
	"late":         {activated, ""},
	"late exam":    {`\["units: .*newly failed: pocket-broken.service \(failed\)"\]`, ""},
	"network":      {activated, ""},
	"network exam": {`\["route: there is no default route .*"\]`, ""},
	"hang goes on": {`\[true,"running"\]`, ""},
	"hang joined":  {failedBy("timeout", false), ""},
	"hang aborted": {"", ""},
	"hang lock":    {"false", ""},
	"busy":         {`\[true,true\]`, ""},

	"hang applier dies":     {"true", ""},
	"hang keeps others out": {"true", ""},
}

const activated = `{"verdict":"activated","result":"exit code 0","current":true}`

// failedBy is the outcome of a switch that failed. Whether a switch that was
// ended in the middle has become the current system is not said.
func failedBy(result string, moved bool, units ...string) string {
	text := `{"verdict":"failed","result":"` + result + `",`
	if len(units) > 0 {
		text += `"failed":\["` + strings.Join(units, `","`) + `.*"\],`
	}
	if !moved {
		return text + `"current":(true|false)}`
	}
	return text + `"current":true}`
}

// agentReturns are the steps after which the base runs again, and is well.
var agentReturns = []string{"two", "activation", "unit", "agent", "exit-100", "signal-9", "late", "network", "hang", "abort"}

// checkSteps compares what the guest printed.
func checkSteps(t *testing.T, text string) {
	t.Helper()
	want := map[string]struct{ got, err string }{}
	for step, w := range agentSteps {
		part, _, _ := strings.Cut(step, " ")
		if full() || part == "service" || part == "alarm" || part == "manager" {
			want[step] = w
		}
	}
	for _, name := range agentReturns {
		if !full() {
			break
		}
		want[name+" back"] = struct{ got, err string }{activated, ""}
		want[name+" well again"] = struct{ got, err string }{`\[\]`, ""}
	}
	for l := range strings.Lines(text) {
		var step struct {
			Step  string          `json:"step"`
			Got   json.RawMessage `json:"got"`
			Error string          `json:"error"`
		}
		if err := json.Unmarshal([]byte(l), &step); err != nil {
			t.Errorf("the guest printed %q: %v", l, err)
			continue
		}
		w, ok := want[step.Step]
		if !ok {
			t.Errorf("the guest says twice, or nobody asked: %q", l)
			continue
		}
		delete(want, step.Step)
		if !whole(w.got, string(step.Got)) {
			t.Errorf("%s: %s; want %s", step.Step, step.Got, w.got)
		}
		if (w.err == "") != (step.Error == "") || !strings.Contains(step.Error, w.err) {
			t.Errorf("%s: error %q; want %q", step.Step, step.Error, w.err)
		}
	}
	for step := range want {
		t.Errorf("the guest says nothing about %q", step)
	}
}

func whole(pattern, text string) bool {
	return regexp.MustCompile(`^(?:` + pattern + `)$`).MatchString(text)
}
