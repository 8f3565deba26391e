// Package stage1 is what xnode-init does: everything between the kernel and the
// system's own init, as PID 1 of the initramfs, without a shell or any other
// program.
//
// It loads the kernel modules that the machine's devices ask for, reads the
// command line and the node config, finds the payload on a medium or on servers,
// sees to it that every byte of it is checked against a manifest that the command
// line names or a key of the node config signed, builds the new root, leaves
// the node config and the network to the system below /run, and hands over.
//
// It does not decide what a node runs, writes to no disk but the one that was
// named for XNODE-STATE, and has no shell: what goes wrong is said on the console
// with step, cause and remedy, and after a bounded time the machine starts again.
//
// What a function decides is kept apart from what it does to the machine: the
// plans (command line, devices, network, mounts, leaves) are pure and read a
// fs.FS; the files named *_linux.go are thin and hold the system calls.
//
// Two invariants: PID 1 never waits without a bound (xnode.debug is the one
// exception, and only after a failure), and no byte of the payload reaches the
// system that was not checked, before or while it was read.
package stage1
