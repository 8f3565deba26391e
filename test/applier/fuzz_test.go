package applier

import (
	"strings"
	"testing"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
)

// FuzzDecode: no bytes at the socket do more than be refused.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"op":"status"}` + "\n"))
	f.Add([]byte(`{"op":"try","record":"v=xnode1; s=1","release":"e30=","system":"/nix/store/x","window":true}`))
	f.Add([]byte(`{"op":"trust","trust":{"document":"e30=","signatures":{"a":"AA=="}}}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		req, err := apply.Decode(line)
		if err == nil && req.Op.ForFollower() && !strings.Contains(string(agent.OpStatus+agent.OpAccept+agent.OpTry+agent.OpStage+agent.OpTrust), string(req.Op)) {
			t.Errorf("%q is for the follower", req.Op)
		}
	})
}
