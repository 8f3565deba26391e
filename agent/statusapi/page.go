package statusapi

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"
)

//go:embed page.html
var pageText string

// page renders one self-contained HTML page: no script, no outside file, so
// that it works through any tunnel and in any browser.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	status, _ := s.get()
	var out bytes.Buffer
	if err := pageTemplate().Execute(&out, &status); err != nil {
		s.opt.Log.Error("render the status page", "error", err)
		http.Error(w, "the page cannot be rendered; /status has the same as JSON", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = out.WriteTo(w) // a reader that went away is no fault
}

func pageTemplate() *template.Template {
	return template.Must(template.New("page").Funcs(template.FuncMap{
		"name":  name,
		"lower": strings.ToLower,
		"ago":   ago,
		"mb":    func(n int64) string { return fmt.Sprintf("%.1f MB", mb(n)) },
		"clock": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	}).Parse(pageText))
}
