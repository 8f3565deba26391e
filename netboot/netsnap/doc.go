// Package netsnap takes down how a running Linux reaches the network, and says
// it in the words of dracut.cmdline(7), so that the system that takes its place
// is reached at the same address.
//
// It carries one address for each network card: by DHCP where the old system
// has it by DHCP, else a static one with gateway, name servers and MTU, bound
// to the card's permanent MAC address. What it cannot carry (bonds, VLANs,
// second addresses, further routes) it names, and says whether the way out
// depends on it. It changes nothing.
//
// Taking down (Take) is apart from judging (Snapshot.Carry), which is pure.
package netsnap
