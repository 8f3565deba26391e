package main

import (
	"net"
	"sync"
	"time"
)

// delayed listens and passes connections on to address such that a round trip
// takes so long, connecting included. Bandwidth stays what it is.
func delayed(address string, roundTrip time.Duration) (listen string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { delay(near, address, roundTrip) })
		}
	})
	return l.Addr().String(), func() { l.Close(); all.Wait() }, nil
}

func delay(near net.Conn, address string, roundTrip time.Duration) {
	defer near.Close()
	opened := time.Now()
	far, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { pass(near, far, opened.Add(roundTrip), roundTrip/2) }) // the handshake comes first
	both.Go(func() { pass(far, near, opened, roundTrip/2) })
	both.Wait()
}

// packet is what came at a time.
type packet struct {
	data []byte
	due  time.Time
}

// pass copies one direction, each part later by d and none before first.
func pass(from, to net.Conn, first time.Time, d time.Duration) {
	flight := make(chan packet, 1024)
	var writer sync.WaitGroup
	writer.Go(func() {
		for p := range flight {
			time.Sleep(time.Until(p.due))
			if _, err := to.Write(p.data); err != nil {
				from.Close()
			}
		}
		if c, ok := to.(*net.TCPConn); ok {
			c.CloseWrite()
		}
	})
	for {
		buf := make([]byte, 32<<10)
		n, err := from.Read(buf)
		due := time.Now()
		if due.Before(first) {
			due = first
		}
		if n > 0 {
			flight <- packet{buf[:n], due.Add(d)}
		}
		if err != nil {
			break
		}
	}
	close(flight)
	writer.Wait()
}
