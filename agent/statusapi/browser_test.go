package statusapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"xnodeos.org/internal/testkit"
)

// A real browser lays the page out on a telephone's screen and on a desk's:
// nothing may stick out sideways, and every part must be there.
func TestPageInABrowser(t *testing.T) {
	t.Parallel()
	s, _, _, page := start(t)
	st := example()
	st.Record.Name = "stable._xnode." + strings.Repeat("a-rather-long-label.", 4) + "example.org"
	st.History[0].Detail = "unit " + strings.Repeat("averylongunitname", 6) + ".service failed"
	s.Set(st)
	_, body := get(t, "GET", page+"/", "localhost")

	// The page itself allows no script; a copy of it measures itself.
	measure := `<script>addEventListener("load", () => document.title = "width " + document.documentElement.scrollWidth + " of " + innerWidth)</script></body>`
	copied := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, strings.Replace(body, "</body>", measure, 1))
	}))
	defer copied.Close()

	for _, screen := range []string{"390,844", "1280,800"} {
		dom := testkit.RunTool(t, "chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
			"--user-data-dir="+t.TempDir(), "--window-size="+screen, "--virtual-time-budget=2000", "--dump-dom", copied.URL)
		var wide, room int
		found := regexp.MustCompile(`width \d+ of \d+`).FindString(dom)
		if _, err := fmt.Sscanf(found, "width %d of %d", &wide, &room); err != nil {
			t.Fatalf("the page on %s has no measured title: %q", screen, found)
		}
		if wide > room {
			t.Errorf("on a screen of %s the page is %d wide and sticks out of %d", screen, wide, room)
		}
	}
	picture := filepath.Join(t.TempDir(), "page.png")
	testkit.RunTool(t, "chromium-headless-shell", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--window-size=390,1400", "--screenshot="+picture, page+"/")
	if info, err := os.Stat(picture); err != nil || info.Size() < 10_000 {
		t.Errorf("the page as it is served draws nothing: %v", err)
	}
	if keep := os.Getenv("XNODE_KEEP_PICTURE"); keep != "" {
		data, err := os.ReadFile(picture)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(keep, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
