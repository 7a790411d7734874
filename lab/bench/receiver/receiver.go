// Package receiver is a webhook receiver that costs little. It stamps the first arrival of each
// event and counts the others.
//
// The first column of the watched row, "seq", numbers the events from 1. A body that is an array has
// several events. The path says how a request is answered: /delay/50ms after that time, /hang never,
// /gate with 503 while the gate is shut, any other path at once.
package receiver

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// Path returns the path whose requests are answered after a delay; 0: at once.
func Path(delay time.Duration) string {
	if delay <= 0 {
		return "/"
	}
	return "/delay/" + delay.String()
}

// Stats counts what has arrived since the last Reset.
type Stats struct {
	Distinct   int64 `json:"distinct"`   // events, each counted once
	Duplicates int64 `json:"duplicates"` // arrivals of an event that had arrived before
	Strange    int64 `json:"strange"`    // requests without a seq, or with one above the capacity
	Hung       int64 `json:"hung"`       // requests to /hang
	Refused    int64 `json:"refused"`    // requests to /gate while it was shut
	Requests   int64 `json:"requests"`   // the others
	Bytes      int64 `json:"bytes"`      // of all bodies
}

// Receiver takes webhooks. New makes one.
type Receiver struct {
	round atomic.Pointer[round]
	shut  atomic.Bool // the gate
}

// round is what arrives between two Resets.
type round struct {
	stamps                                        []atomic.Int64 // of the first arrival, by seq; Unix time in ns
	distinct, duplicates, strange, hung, received atomic.Int64
	refused, requests                             atomic.Int64

	mu      sync.Mutex
	awaited atomic.Int64
	arrived chan struct{} // closed when distinct reaches awaited
}

// New makes a Receiver that counts nothing until Reset.
func New() *Receiver {
	r := &Receiver{}
	r.Reset(0)
	return r
}

// Reset forgets everything and prepares for events numbered 1 to capacity.
func (r *Receiver) Reset(capacity int) {
	r.round.Store(&round{stamps: make([]atomic.Int64, capacity+1)})
}

// Stats returns the counts.
func (r *Receiver) Stats() Stats {
	d := r.round.Load()
	return Stats{
		Distinct: d.distinct.Load(), Duplicates: d.duplicates.Load(), Strange: d.strange.Load(),
		Hung: d.hung.Load(), Refused: d.refused.Load(), Requests: d.requests.Load(), Bytes: d.received.Load(),
	}
}

// Stamps returns the first arrivals by seq, in Unix nanoseconds; 0 where an event has not arrived.
func (r *Receiver) Stamps() []int64 {
	d := r.round.Load()
	out := make([]int64, len(d.stamps))
	for i := range d.stamps {
		out[i] = d.stamps[i].Load()
	}
	return out
}

// Shut shuts the gate, or opens it.
func (r *Receiver) Shut(shut bool) { r.shut.Store(shut) }

// Await waits until n events have arrived, or ctx is done.
func (r *Receiver) Await(ctx context.Context, n int64) {
	d := r.round.Load()
	d.mu.Lock()
	arrived := make(chan struct{})
	d.arrived = arrived
	d.awaited.Store(n)
	d.mu.Unlock()
	if d.distinct.Load() >= n {
		return
	}
	select {
	case <-arrived:
	case <-ctx.Done():
	}
}

func (d *round) record(seq int64, now int64) {
	if seq <= 0 || seq >= int64(len(d.stamps)) {
		d.strange.Add(1)
		return
	}
	if !d.stamps[seq].CompareAndSwap(0, now) {
		d.duplicates.Add(1)
		return
	}
	if d.distinct.Add(1) == d.awaited.Load() {
		d.mu.Lock()
		if d.arrived != nil {
			close(d.arrived)
			d.arrived = nil
		}
		d.mu.Unlock()
	}
}

// Serve answers connections until the listener is closed.
func (r *Receiver) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go r.serve(conn)
	}
}

// answer has the headers that a usual server sends. They matter since each attempt's log has them.
const answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 15\r\n\r\n{\"status\":\"ok\"}"

const unavailable = "HTTP/1.1 503 Service Unavailable\r\nDate: Mon, 02 Jan 2006 15:04:05 GMT\r\nContent-Length: 0\r\n\r\n"

const bufferSize = 64 << 10

func (r *Receiver) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, bufferSize)
	for {
		req, err := readHead(in)
		if err != nil {
			return
		}
		seq, more, err := readSeqs(in, req.length)
		if err != nil {
			return
		}
		now := time.Now()
		d := r.round.Load()
		d.received.Add(req.length)
		if req.hang {
			d.hung.Add(1)
			_, _ = in.ReadByte() // returns when the connection ends
			return
		}
		if req.gate && r.shut.Load() {
			d.refused.Add(1)
			if _, err := conn.Write([]byte(unavailable)); err != nil {
				return
			}
			continue
		}
		d.requests.Add(1)
		d.record(seq, now.UnixNano())
		for _, seq := range more {
			d.record(seq, now.UnixNano())
		}
		if req.delay > 0 {
			<-time.After(req.delay)
		}
		if _, err := conn.Write([]byte(answer)); err != nil {
			return
		}
	}
}

type head struct {
	length int64
	delay  time.Duration
	hang   bool
	gate   bool
}

var errMalformed = errors.New("malformed request")

// readHead reads a request line and its headers, as far as this receiver needs them.
func readHead(in *bufio.Reader) (head, error) {
	h := head{length: -1}
	line, err := in.ReadSlice('\n')
	if err != nil {
		return h, err
	}
	_, rest, _ := bytes.Cut(line, []byte(" "))
	path, _, ok := bytes.Cut(rest, []byte(" "))
	if !ok {
		return h, errMalformed
	}
	if delay, ok := bytes.CutPrefix(path, []byte("/delay/")); ok {
		if h.delay, err = time.ParseDuration(string(delay)); err != nil {
			return h, errMalformed
		}
	}
	h.hang, h.gate = bytes.Equal(path, []byte("/hang")), bytes.Equal(path, []byte("/gate"))
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return h, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 0 {
			break
		}
		const name = "content-length:"
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			if h.length, err = strconv.ParseInt(string(bytes.TrimSpace(line[len(name):])), 10, 64); err != nil {
				return h, errMalformed
			}
		}
	}
	if h.length < 0 {
		return h, errMalformed
	}
	return h, nil
}

// seqWithin is how far from its beginning the body must have the number.
const seqWithin = 2048

// readSeqs reads the body and returns the first number in it; 0: there is none. more are the numbers
// of the other events, if the body is an array.
func readSeqs(in *bufio.Reader, length int64) (first int64, more []int64, err error) {
	start, err := in.Peek(int(min(length, 1)))
	if err != nil {
		return 0, nil, err
	}
	if string(start) != "[" {
		first, err = readSeq(in, length)
		return first, nil, err
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(in, body); err != nil {
		return 0, nil, err
	}
	for at := bytes.Index(body, []byte(seqName)); at >= 0; at = bytes.Index(body, []byte(seqName)) {
		body = body[at:]
		if seq := findSeq(body); first == 0 {
			first = seq
		} else {
			more = append(more, seq)
		}
		body = body[len(seqName):]
	}
	return first, more, nil
}

// seqName stands before the number.
const seqName = `"seq":`

// readSeq reads the body and returns the number in it; 0: there is none.
func readSeq(in *bufio.Reader, length int64) (int64, error) {
	start, err := in.Peek(int(min(length, seqWithin)))
	if err != nil {
		return 0, err
	}
	seq := findSeq(start)
	for length > 0 {
		n, err := in.Discard(int(min(length, bufferSize)))
		if err != nil {
			return 0, err
		}
		length -= int64(n)
	}
	return seq, nil
}

func findSeq(body []byte) int64 {
	at := bytes.Index(body, []byte(seqName))
	if at < 0 {
		return 0
	}
	var n int64
	for _, c := range bytes.TrimLeft(body[at+len(seqName):], " ") { // jsonb is written with a space
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
