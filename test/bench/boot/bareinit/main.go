// Command bareinit is the smallest init that says something: what a boot costs
// before any program of ours does anything. It is the only file of an
// initramfs, prints BARE-READY and powers the machine off.
package main

import (
	"fmt"
	"os"
	"syscall"
)

func main() {
	// The kernel has opened /dev/console as the standard streams.
	if _, err := fmt.Fprintln(os.Stdout, "BARE-READY"); err != nil {
		os.Exit(1) // the kernel panics, the measurement sees it
	}
	if err := syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		os.Exit(1)
	}
}
