package sbom

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"xnodeos.org/internal/testkit"
)

// checkSchema holds a bill against CycloneDX's own JSON schema, which lies in
// the library's module.
func checkSchema(t *testing.T, data []byte) {
	t.Helper()
	s := readSchema(t)
	s.problems = func(where, what string) { t.Errorf("%s: %s", where, what) }
	var bill any
	if err := json.Unmarshal(data, &bill); err != nil {
		t.Fatal(err)
	}
	s.check("bill", s.root, bill)
}

func readSchema(t *testing.T) (s schema) {
	t.Helper()
	dir := strings.TrimSpace(testkit.RunTool(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go"))
	text, err := os.ReadFile(filepath.Join(dir, "schema", "bom-1.6.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &s.root); err != nil {
		t.Fatal(err)
	}
	return s
}

// schema checks values by the part of JSON Schema draft 7 that the schema of
// CycloneDX uses for a bill like ours. A keyword that it does not know is a
// problem, so nothing passes by being overlooked.
type schema struct {
	root     map[string]any
	problems func(where, what string)
}

// words that do not restrict a value.
var plainWords = []string{
	"$schema", "$id", "$comment", "title", "description", "examples", "default", "definitions", "deprecated", "meta:enum", "contentMediaType", "readOnly",
}

func (s schema) check(where string, rule map[string]any, value any) {
	for word, want := range rule {
		switch word {
		case "$ref":
			name, ok := strings.CutPrefix(want.(string), "#/definitions/")
			target, found := s.root["definitions"].(map[string]any)[name].(map[string]any)
			if !ok || !found {
				s.problems(where, "the schema refers to "+want.(string))
				continue
			}
			s.check(where, target, value)
		case "properties", "required", "additionalProperties":
			if object, ok := value.(map[string]any); ok {
				s.checkObject(where, word, rule, object)
			}
		case "items", "uniqueItems", "minItems":
			if list, ok := value.([]any); ok {
				s.checkList(where, word, want, list)
			}
		case "additionalItems": // has no meaning beside an "items" that is a schema
		case "type", "enum", "pattern", "minLength", "maxLength", "minimum", "format":
			if !valid(word, want, value) {
				s.problems(where, fmt.Sprintf("%v breaks %s %v", value, word, want))
			}
		case "oneOf", "anyOf":
			s.checkAny(where, word, want.([]any), value)
		default:
			if !slices.Contains(plainWords, word) {
				s.problems(where, "this test does not know the schema's word "+word)
			}
		}
	}
}

func (s schema) checkObject(where, word string, rule map[string]any, object map[string]any) {
	properties, _ := rule["properties"].(map[string]any)
	switch word {
	case "properties":
		for name, value := range object {
			if sub, ok := properties[name].(map[string]any); ok {
				s.check(where+"."+name, sub, value)
			}
		}
	case "required":
		for _, name := range rule[word].([]any) {
			if _, ok := object[name.(string)]; !ok {
				s.problems(where, fmt.Sprintf("%v is missing", name))
			}
		}
	case "additionalProperties":
		for name := range object {
			if _, ok := properties[name]; !ok && rule[word] == false {
				s.problems(where, name+" is no known property")
			}
		}
	}
}

func (s schema) checkList(where, word string, want any, list []any) {
	switch word {
	case "items":
		for i, value := range list {
			s.check(fmt.Sprintf("%s[%d]", where, i), want.(map[string]any), value)
		}
	case "uniqueItems":
		for i, value := range list {
			for _, other := range list[:i] {
				if want == true && reflect.DeepEqual(value, other) {
					s.problems(where, fmt.Sprintf("%v is there twice", value))
				}
			}
		}
	case "minItems":
		if float64(len(list)) < want.(float64) {
			s.problems(where, "too few items")
		}
	}
}

// checkAny counts the alternatives that the value keeps.
func (s schema) checkAny(where, word string, rules []any, value any) {
	kept, first := 0, ""
	for _, rule := range rules {
		broken := false
		inner := schema{root: s.root, problems: func(where, what string) {
			broken, first = true, where+": "+what
		}}
		inner.check(where, rule.(map[string]any), value)
		if !broken {
			kept++
		}
	}
	if kept == 0 || word == "oneOf" && kept > 1 {
		s.problems(where, fmt.Sprintf("%d of the alternatives fit; %s", kept, first))
	}
}

func valid(word string, want, value any) bool {
	text, isText := value.(string)
	number, isNumber := value.(float64)
	switch word {
	case "type":
		return hasType(want, value)
	case "enum":
		return slices.ContainsFunc(want.([]any), func(x any) bool { return reflect.DeepEqual(x, value) })
	case "pattern":
		return !isText || regexp.MustCompile(want.(string)).MatchString(text)
	case "minLength":
		return !isText || float64(utf8.RuneCountInString(text)) >= want.(float64)
	case "maxLength":
		return !isText || float64(utf8.RuneCountInString(text)) <= want.(float64)
	case "minimum":
		return !isNumber || number >= want.(float64)
	case "format":
		if want == "date-time" {
			_, err := time.Parse(time.RFC3339, text)
			return err == nil
		}
		return want == "iri-reference" || want == "idn-email" // no value of ours has one
	}
	return false
}

func hasType(want, value any) bool {
	switch want {
	case "object":
		_, ok := value.(map[string]any)
		return ok
	case "array":
		_, ok := value.([]any)
		return ok
	case "string":
		_, ok := value.(string)
		return ok
	case "integer":
		n, ok := value.(float64)
		return ok && n == float64(int64(n))
	case "number":
		_, ok := value.(float64)
		return ok
	case "boolean":
		_, ok := value.(bool)
		return ok
	}
	return false
}

// TestSchemaFindsMistakes: a check that finds nothing would be none.
func TestSchemaFindsMistakes(t *testing.T) {
	t.Parallel()
	data := string(build(t, example(t)))
	for old, changed := range map[string]string{
		`"bomFormat": "CycloneDX"`:   `"bomFormat": "Cyclone"`,
		`"type": "operating-system"`: `"type": "system"`,
		`"serialNumber": "urn:uuid:`: `"serialNumber": "urn:uuid:x`,
		`"version": 1`:               `"version": 0`,
		`"name": "vmlinuz",`:         ``,
		`"alg": "SHA-256"`:           `"alg": "SHA-255"`,
		`"ref": "file:vmlinuz"`:      `"ref": ""`,
		`"timestamp": "2026-11-20T1`: `"timestamp": "2026-11-20 1`,
		`"description": "kernel"`:    `"desc": "kernel"`,
		`"components": [`:            `"components": {}, "services": [`,
		`"dependsOn": [`:             `"dependsOn": ["` + bash + `",`,
		`"content": "` + sum("bios"): `"content": "` + sum("bios")[1:],
	} {
		if !strings.Contains(data, old) {
			t.Errorf("the bill has no %s", old)
			continue
		}
		found := 0
		var bill any
		if err := json.Unmarshal([]byte(strings.Replace(data, old, changed, 1)), &bill); err != nil {
			t.Errorf("%s: %v", changed, err)
			continue
		}
		s := readSchema(t)
		s.problems = func(string, string) { found++ }
		s.check("bill", s.root, bill)
		if found == 0 {
			t.Errorf("%s: nothing is found", changed)
		}
	}
}
