package vm

import "slices"

// bootAction is what a test sector does after its message.
type bootAction []byte

// The three ends of a guest, in 16-bit machine code.
func powerOff() bootAction {
	// out 0x604, 0x2000: ACPI S5 through PIIX4's PM1a control register, where
	// SeaBIOS puts it on QEMU's "pc".
	return bootAction{0xba, 0x04, 0x06, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd}
}

func resetGuest() bootAction {
	return bootAction{0xb0, 0xfe, 0xe6, 0x64, 0xf4, 0xeb, 0xfd} // out 0x64, 0xfe: keyboard controller
}

func hangGuest() bootAction {
	return bootAction{0xf4, 0xeb, 0xfd} // hlt; jmp back
}

// bootDisk is a disk of 1 MiB whose first sector the BIOS starts: it waits for
// three ticks of the timer interrupt, so that a host whose virtual interrupts
// do not arrive is found out, writes message to the first serial port, then
// does what then says. (SeaBIOS does not start a disk of a single sector.)
func bootDisk(message string, then bootAction) []byte {
	code := []byte{
		0xfa,       // cli
		0x31, 0xc0, // xor ax, ax
		0x8e, 0xd8, // mov ds, ax
		0x8e, 0xd0, // mov ss, ax
		0xbc, 0x00, 0x7c, // mov sp, 0x7c00
		0xfb,                   // sti
		0x8b, 0x1e, 0x6c, 0x04, // mov bx, [0x46c]   the BIOS's tick count
		0xf4,             // tick: hlt
		0xa1, 0x6c, 0x04, // mov ax, [0x46c]
		0x29, 0xd8, // sub ax, bx
		0x83, 0xf8, 0x03, // cmp ax, 3
		0x72, 0xf5, // jb tick
	}
	output := []byte{
		0xac,       // next: lodsb
		0x84, 0xc0, // test al, al
		0x74, 0x12, // jz end
		0x88, 0xc4, // mov ah, al
		0xba, 0xfd, 0x03, // mov dx, 0x3fd
		0xec,       // wait: in al, dx
		0xa8, 0x20, // test al, 0x20   transmitter empty
		0x74, 0xfb, // jz wait
		0x88, 0xe0, // mov al, ah
		0xba, 0xf8, 0x03, // mov dx, 0x3f8
		0xee,       // out dx, al
		0xeb, 0xe9, // jmp next
	}
	text := 0x7c00 + len(code) + 3 + len(output) + len(then)
	code = append(code, 0xbe, byte(text), byte(text>>8)) // mov si, text
	code = slices.Concat(code, output, then, []byte(message), []byte{0})
	disk := make([]byte, 1<<20)
	if copy(disk[:510], code) < len(code) {
		panic("BUG: message does not fit a boot sector")
	}
	disk[510], disk[511] = 0x55, 0xaa
	return disk
}
