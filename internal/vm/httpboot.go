package vm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf16"
)

// VarsPatch is a change to a copy of OVMF's template of variables.
type VarsPatch struct {
	Offset int64 // in the file
	Data   []byte
}

// HTTPBoot returns what makes the firmware load an EFI program from url by UEFI
// HTTP boot, as its only boot entry. url is what a person would type into the
// firmware's menu; any DHCP server will do then, also one that knows nothing of
// HTTP boot, as QEMU's (UEFI 2.10, section 24.7.2, "home environment"). The
// network card must be the firmware's to drive: no PXE.
func (o OVMF) HTTPBoot(url string) (VarsPatch, error) {
	template, err := os.ReadFile(o.Vars)
	if err != nil {
		return VarsPatch{}, fmt.Errorf("UEFI variables: %w", err)
	}
	p, err := httpBootPatch(template, url)
	if err != nil {
		return VarsPatch{}, fmt.Errorf("UEFI variables in %q: %w", o.Vars, err)
	}
	return p, nil
}

// WriteVars makes the file to from the template with the change, for one
// machine of its own.
func (o OVMF) WriteVars(to string, p VarsPatch) (err error) {
	in, err := os.Open(o.Vars)
	if err != nil {
		return fmt.Errorf("UEFI variables: %w", err)
	}
	defer in.Close() // only read
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("UEFI variables: %w", err)
	}
	_, err = io.Copy(out, in)
	if err == nil {
		_, err = out.WriteAt(p.Data, p.Offset)
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("UEFI variables: %w", err)
	}
	return nil
}

// The file is a firmware volume (PI 1.7, volume 3, section 3.2.1) that holds a
// variable store (edk2: MdeModulePkg/Include/Guid/VariableFormat.h).
const (
	volumeSignature = 0x28
	volumeHeaderLen = 0x30
	storeHeaderLen  = 28
	storeSizeAt     = 16
	storeFormatAt   = 20
	variableLen     = 60
	variableStart   = 0x55aa
	variableAdded   = 0x3f
	storeFormatted  = 0x5a
	storeHealthy    = 0xfe
	// bootVariable is EFI_VARIABLE_NON_VOLATILE, BOOTSERVICE_ACCESS and
	// RUNTIME_ACCESS.
	bootVariable = 7
)

// GUIDs as they lie in the file: gEfiAuthenticatedVariableGuid,
// EFI_GLOBAL_VARIABLE.
const (
	authenticatedGUID = "\x78\x2c\xf3\xaa\x7b\x94\x9a\x43\xa1\x80\x2e\x14\x4e\xc3\x77\x92"
	globalGUID        = "\x61\xdf\xe4\x8b\xca\x93\xd2\x11\xaa\x0d\x00\xe0\x98\x03\x2b\x8c"
)

func httpBootPatch(template []byte, url string) (VarsPatch, error) {
	at, end, err := freeVariables(template)
	if err != nil {
		return VarsPatch{}, err
	}
	if len(url) > 1024 || strings.IndexFunc(url, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return VarsPatch{}, fmt.Errorf("URL %q: at most 1024 printable characters without spaces", url)
	}
	data := variable("Boot0000", loadOption("XnodeOS", url))
	data = append(data, variable("BootOrder", []byte{0, 0})...)
	if at+len(data) > end {
		return VarsPatch{}, fmt.Errorf("%d bytes are free, %d are needed", end-at, len(data))
	}
	return VarsPatch{Offset: int64(at), Data: data}, nil
}

// freeVariables finds the free end of the store.
func freeVariables(b []byte) (at, end int, err error) {
	errNone := errors.New("no store of authenticated variables; want OVMF's own template")
	if len(b) < volumeHeaderLen+2 || string(b[volumeSignature:volumeSignature+4]) != "_FVH" {
		return 0, 0, errNone
	}
	store := int(binary.LittleEndian.Uint16(b[volumeHeaderLen:]))
	if len(b) < store+storeHeaderLen || string(b[store:store+16]) != authenticatedGUID ||
		b[store+storeFormatAt] != storeFormatted || b[store+storeFormatAt+1] != storeHealthy {
		return 0, 0, errNone
	}
	size := uint64(binary.LittleEndian.Uint32(b[store+storeSizeAt:]))
	if size < storeHeaderLen || uint64(store)+size > uint64(len(b)) {
		return 0, 0, fmt.Errorf("the store has %d bytes and lies outside the file", size)
	}
	end = store + int(size)
	for at = store + storeHeaderLen; at+variableLen <= end && binary.LittleEndian.Uint16(b[at:]) == variableStart; {
		nameLen, dataLen := uint64(binary.LittleEndian.Uint32(b[at+36:])), uint64(binary.LittleEndian.Uint32(b[at+40:]))
		if next := uint64(at) + variableLen + nameLen + dataLen; next > uint64(end) {
			return 0, 0, fmt.Errorf("the variable at byte %d lies outside the store", at)
		}
		name := b[at+variableLen:][:nameLen]
		if bytes.HasPrefix(name, utf16Bytes("Boot")) && b[at+2] == variableAdded {
			return 0, 0, errors.New("there are boot entries already; want OVMF's template as it is delivered")
		}
		at = (at + variableLen + int(nameLen+dataLen) + 3) &^ 3
	}
	if at > end || slices.ContainsFunc(b[at:end], func(c byte) bool { return c != 0xff }) {
		return 0, 0, errors.New("the store's free end is not empty")
	}
	return at, end, nil
}

// variable is one entry of the store, padded to where the next may begin.
func variable(name string, data []byte) []byte {
	encoded := append(utf16Bytes(name), 0, 0)
	v := make([]byte, variableLen, variableLen+len(encoded)+len(data)+3)
	binary.LittleEndian.PutUint16(v, variableStart)
	v[2] = variableAdded
	binary.LittleEndian.PutUint32(v[4:], bootVariable)
	binary.LittleEndian.PutUint32(v[36:], uint32(len(encoded)))
	binary.LittleEndian.PutUint32(v[40:], uint32(len(data)))
	copy(v[44:], globalGUID)
	v = append(append(v, encoded...), data...)
	for len(v)%4 != 0 {
		v = append(v, 0xff)
	}
	return v
}

// loadOption is an EFI_LOAD_OPTION (UEFI 2.10, section 3.1.3) with a short-form
// URI device path (section 10.3.4.22), which any card may serve.
func loadOption(description, url string) []byte {
	path := []byte{0x03, 0x18}
	path = binary.LittleEndian.AppendUint16(path, uint16(4+len(url)))
	path = append(path, url...)
	path = append(path, 0x7f, 0xff, 4, 0)
	o := binary.LittleEndian.AppendUint32(nil, 1) // LOAD_OPTION_ACTIVE
	o = binary.LittleEndian.AppendUint16(o, uint16(len(path)))
	o = append(o, utf16Bytes(description)...)
	return append(append(o, 0, 0), path...)
}

func utf16Bytes(s string) []byte {
	var b []byte
	for _, unit := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, unit)
	}
	return b
}
