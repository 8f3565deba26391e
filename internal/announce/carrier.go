package announce

import (
	"fmt"
	"strings"
)

// maxFile bounds the file of a record: there is one line to be read.
const maxFile = 4 << 10

// FileName is the name of a record's file on the branch "announce" of the
// config repository, which carries it where DNS does not.
func FileName(owner string) (string, error) {
	owner, err := Owner(owner)
	if err != nil {
		return "", err
	}
	return owner + ".txt", nil
}

// FileTexts returns what such a file holds for Choose: one text a line. Git is
// another carrier and nothing more: what it brings is judged like an answer of
// DNS.
func FileTexts(data []byte) ([]string, error) {
	if len(data) > maxFile {
		return nil, fmt.Errorf("the record's file has %d bytes; allowed are %d", len(data), maxFile)
	}
	var texts []string
	for line := range strings.SplitSeq(string(data), "\n") {
		if line = strings.TrimSuffix(line, "\r"); line != "" {
			texts = append(texts, line)
		}
	}
	return texts, nil
}
