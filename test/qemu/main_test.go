package qemu

import (
	"flag"
	"fmt"
	"os"
	"testing"
)

// TestMain gives all scenarios one folder for what is built once.
func TestMain(m *testing.M) {
	flag.Parse()
	if testing.Short() {
		// `go test -short ./...` is for the unit tests; scripts/test --fast names
		// the packages that it runs and leaves this one out.
		if os.Getenv("XNODE_REQUIRE_QEMU") == "1" {
			fmt.Fprintln(os.Stderr, "XNODE_REQUIRE_QEMU=1 and -short exclude each other: nothing may be skipped")
			os.Exit(1)
		}
		fmt.Println("no machine is booted: -short")
		return
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "xnodeos-qemu-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	built.dir = dir
	return m.Run()
}

// full tells whether whole matrices are wanted.
func full() bool { return os.Getenv("XNODE_FULL") == "1" }
