// Package takeover replaces the running Linux by a system that is carried
// along, by kexec: it looks whether that can work (preflight), packs what the
// next system keeps of this one (hand-over), loads it, and jumps.
//
// Until the jump nothing is changed on the old system: no file is written, no
// service touched, and what was loaded into the kernel is taken out again when
// a step fails. Secrets of the old system (its ssh host keys) are held in
// memory that is never swapped out. After the jump the old disks are as they
// were, synced and read-only, and a power cycle brings the old system back.
//
// What is decided is apart from what is done: facts are read from a fs.FS and
// judged by pure functions; the files named *_linux.go hold the system calls.
// The package does not open the file that carries the new system, and does not
// read the network: both are handed to it.
package takeover
