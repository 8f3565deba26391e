package trust

import (
	"maps"
	"slices"
	"strings"
)

// Collect takes the document and its signatures out of a folder of files: of
// the branch "announce" (no prefix), of a node config (prefix "trust/"). It is
// false if there is no document.
func Collect(files map[string][]byte, prefix string) (Bundle, bool) {
	document, ok := files[prefix+DocumentName]
	if !ok {
		return Bundle{}, false
	}
	b := Bundle{Document: document}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasPrefix(name, prefix+DocumentName+".sig.") {
			b.Signatures = append(b.Signatures, files[name])
		}
	}
	return b, true
}
