# The daily tasks. Every one is a script or a plain command; just is optional.

# What there is
default:
    @just --list

# Tools, boot records, programs
setup:
    ./scripts/setup

# From here to a booted node
try:
    ./scripts/try

# All checks and tests, VMs included
test:
    ./scripts/test

# All but the VMs
check:
    ./scripts/test --fast

# Only the VM tests
test-qemu:
    ./scripts/test ./test/qemu

# ISO and netboot tree of the pocket system into out/
image: setup
    build/bin/xnodeos image build --system pocket --out out

fmt:
    gofmt -w $(git ls-files '*.go')

lint:
    GOLANGCI_LINT_CACHE={{justfile_directory()}}/build/test/lint-cache go tool -modfile=tools.mod golangci-lint run ./...

# Measurements, e.g. just bench image
bench NAME:
    ./scripts/bench {{NAME}}
