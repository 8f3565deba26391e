package trust

import (
	"strings"

	"xnodeos.org/internal/sshsign"
)

// Line writes one line of an allowed_signers file, without line end. The
// comment, which must fit on a line, is also the principal if it can be one.
func Line(key sshsign.PublicKey, comment string, namespaces ...string) string {
	principal := comment
	if !isPrincipal(comment) {
		principal = "*"
	}
	line := principal + ` namespaces="` + strings.Join(namespaces, ",") + `" ` + key.String()
	if comment != "" {
		line += " " + comment
	}
	return line
}

// isPrincipal takes what reads as one plain identity, as in "ops@example.org".
func isPrincipal(text string) bool {
	for _, r := range text {
		if !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("@._+-", r)) {
			return false
		}
	}
	return text != "" && !sshsign.IsKeyType(text)
}
