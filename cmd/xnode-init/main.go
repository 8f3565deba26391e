// Command xnode-init is the /init of an initramfs: the first stage of a boot,
// from the kernel to the system's own init. What it does stands in package
// stage1; it has no options, and its only input is the kernel command line.
package main

import (
	"context"
	"fmt"
	"os"

	"xnodeos.org/netboot/stage1"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "xnode-init: this is the first program of an initramfs and runs as process 1 only; `xnodeos image build` puts it there")
		os.Exit(2)
	}
	// Whatever Run returns is the end of process 1; the kernel panics, and
	// panic= on its command line makes it start again.
	fmt.Fprintf(os.Stderr, "xnode-init: error: %v\n", stage1.Run(context.Background()))
	os.Exit(1)
}
