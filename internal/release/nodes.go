package release

import (
	"fmt"
	"maps"
	"slices"
)

// Node is what a fleet says about one node.
type Node struct {
	Class    string            `json:"class"`
	Hostname string            `json:"hostname,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Nodes is nodes.json. The order of the fields is that of the encoding.
type Nodes struct {
	V        int      `json:"v"`
	Critical []string `json:"critical"`
	// Nodes has the nodes by the fingerprint of their key, "SHA256:...".
	Nodes map[string]Node `json:"nodes"`
}

// OpenNodes reads the nodes.json that r names; nil without error if r names
// none. The errors are *MismatchError and those of ParseNodes.
func (r *Release) OpenNodes(data []byte) (*Nodes, error) {
	if r.Nodes == "" {
		return nil, nil
	}
	if got := DigestText(data); got != r.Nodes {
		return nil, &MismatchError{NodesName, r.Nodes, got}
	}
	return ParseNodes(data)
}

// ParseNodes reads and checks a nodes.json.
func ParseNodes(data []byte) (*Nodes, error) {
	n := &Nodes{}
	if err := parse(data, MaxNodes, n, nodesKeys); err != nil {
		return nil, fmt.Errorf("parse %s: %w", NodesName, err)
	}
	if err := n.check(); err != nil {
		return nil, fmt.Errorf("parse %s: %w", NodesName, err)
	}
	return n, nil
}

// Encode returns the one encoding, as that of a Release.
func (n *Nodes) Encode() ([]byte, error) {
	out := *n
	out.Critical = notNil(out.Critical)
	if out.Nodes == nil {
		out.Nodes = map[string]Node{}
	}
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", NodesName, err)
	}
	return encode(NodesName, &out, MaxNodes)
}

func (n *Nodes) check() error {
	if n.V != Version {
		return fmt.Errorf("v is %d; allowed is %d", n.V, Version)
	}
	if err := checkCritical(n.Critical, nodesKeys); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(n.Nodes)) {
		if !isFingerprint(key) {
			return fmt.Errorf("node %q: want the fingerprint of its key, SHA256: and 43 characters, as ssh-keygen -l prints it", cut(key))
		}
		if err := n.Nodes[key].Check(); err != nil {
			return fmt.Errorf("node %q: %w", key, err)
		}
	}
	return nil
}

// ClassOf returns the class of a node: what the release lists for the
// fingerprint of its key wins over what its node config says. Nodes may be nil.
// It is "" if neither names one.
func (n *Nodes) ClassOf(fingerprint, configured string) string {
	if n != nil {
		if node, ok := n.Nodes[fingerprint]; ok {
			return node.Class
		}
	}
	return configured
}
