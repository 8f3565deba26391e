package repo

import (
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// packageFolders are the top-level folders that hold Go packages.
var packageFolders = []string{
	"agent", "cmd", "configs", "imagebuild", "internal", "modules", "netboot", "nixos", "test",
}

// topLevel is everything else that may lie at the top of the repository.
var topLevel = []string{
	".ci", ".gitignore", ".golangci.yml", "Justfile", "LICENSE", "README.md", "docs", "flake.lock", "flake.nix",
	"go.mod", "go.sum", "scripts", "tools.mod", "tools.sum",
}

// limits of a file. Past them it is split by what changes together.
const (
	maxLines     = 400 // of a Go file that is not a test
	maxMainLines = 120 // of a main.go: parse, wire, run, map the error to an exit code
)

// longFiles are the files that may be longer, with the reason.
var longFiles = map[string]string{}

// TopLevel returns what lies at the top of the repository and has no place
// there. names are the paths of all files of the repository.
func TopLevel(names []string) []Violation {
	var out []Violation
	var seen []string
	for _, name := range names {
		top, _, _ := strings.Cut(name, "/")
		if slices.Contains(seen, top) {
			continue
		}
		seen = append(seen, top)
		if !slices.Contains(packageFolders, top) && !slices.Contains(topLevel, top) {
			out = append(out, Violation{top, "nothing else at the top level", "a newcomer reads the top level first; every name there must be a word of the design"})
		}
	}
	return out
}

// FileSizes returns the Go files that are longer than they may be.
func FileSizes(fsys fs.FS, names []string) ([]Violation, error) {
	var out []Violation
	for _, name := range names {
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") || longFiles[name] != "" {
			continue
		}
		data, err := fs.ReadFile(fsys, name)
		if err != nil {
			return nil, err
		}
		limit := maxLines
		if strings.HasPrefix(name, "cmd/") && strings.HasSuffix(name, "/main.go") {
			limit = maxMainLines
		}
		if lines := strings.Count(string(data), "\n"); lines > limit {
			out = append(out, Violation{name, fmt.Sprintf("%d lines, at most %d", lines, limit), "a file is read in one sitting; split it by what changes together"})
		}
	}
	return out, nil
}

// codeSpan is inline code in Markdown, link the target of a link to a file.
var (
	codeSpan = regexp.MustCompile("`([^`\n]+)`")
	link     = regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
)

// pathLike is a word that can only mean a path of the repository.
var pathLike = regexp.MustCompile(`^\.?/?[A-Za-z0-9_.{},*-]+(/[A-Za-z0-9_.{},*-]*)+$`)

// Links returns the files that a Markdown text links to, relative to itself.
func Links(markdown string) []string {
	var out []string
	for _, m := range link.FindAllStringSubmatch(withoutFences(markdown), -1) {
		out = append(out, m[1])
	}
	return out
}

// Paths returns the paths of the repository that a Markdown text names in
// inline code: words that begin with a top-level name. Braces are expanded;
// what is made by a build (build/, out/) is not a path of the repository.
func Paths(markdown string) []string {
	var out []string
	for _, m := range codeSpan.FindAllStringSubmatch(withoutFences(markdown), -1) {
		word := strings.TrimSpace(m[1])
		if !pathLike.MatchString(word) && !slices.Contains(topLevel, word) {
			continue
		}
		for _, path := range expand(strings.TrimPrefix(word, "./")) {
			top, _, _ := strings.Cut(path, "/")
			if slices.Contains(packageFolders, top) || slices.Contains(topLevel, top) {
				out = append(out, strings.TrimSuffix(path, "/"))
			}
		}
	}
	return out
}

// Commands returns the command lines in the fenced sh blocks of a Markdown
// text, one a line, continued lines joined, comments and prompts cut.
func Commands(markdown string) []string {
	var out []string
	for _, block := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```").FindAllStringSubmatch(markdown, -1) {
		text := strings.ReplaceAll(block[1], "\\\n", " ")
		for line := range strings.Lines(text) {
			line, _, _ = strings.Cut(strings.TrimSpace(line), " #")
			line = strings.TrimSpace(strings.TrimPrefix(line, "$ "))
			if line != "" && !strings.HasPrefix(line, "#") {
				out = append(out, line)
			}
		}
	}
	return out
}

func withoutFences(markdown string) string {
	return regexp.MustCompile("(?ms)^```.*?^```").ReplaceAllString(markdown, "")
}

// expand writes a{b,c}d out as abd and acd.
func expand(word string) []string {
	before, rest, ok := strings.Cut(word, "{")
	if !ok {
		return []string{word}
	}
	inner, after, ok := strings.Cut(rest, "}")
	if !ok {
		return []string{word}
	}
	var out []string
	for part := range strings.SplitSeq(inner, ",") {
		out = append(out, expand(before+part+after)...)
	}
	return out
}
