package webhook

import (
	"compress/gzip"
	"maps"
	"sync"
)

// compressAbove is the size in bytes above which a body is compressed where the configuration asks
// for it. Smaller ones fit into a packet or two anyway.
const compressAbove = 1 << 10

// packers holds compressors that are not in use. One has 0.8 MB, and is in use only while a processor
// compresses, so there are not more of them than processors for long. The zero value works.
type packers struct{ pool sync.Pool }

// packer is a compressor and the slice that it appends to.
type packer struct {
	gzip *gzip.Writer
	out  []byte
}

func (p *packer) Write(b []byte) (int, error) {
	p.out = append(p.out, b...)
	return len(b), nil
}

// appendGzip appends body in the format gzip to dst and returns the extended slice.
func (p *packers) appendGzip(dst, body []byte) []byte {
	c, _ := p.pool.Get().(*packer)
	if c == nil {
		c = &packer{}
		c.gzip, _ = gzip.NewWriterLevel(c, gzip.BestSpeed) // the level is valid
	}
	c.out = dst
	c.gzip.Reset(c)
	_, _ = c.gzip.Write(body) // a packer returns no error
	_ = c.gzip.Close()
	dst, c.out = c.out, nil
	p.pool.Put(c)
	return dst
}

// compress compresses the body of a request, unless it gets no smaller.
func (c *Client) compress(m *made, s *scratch) {
	s.packed = c.packers.appendGzip(s.packed[:0], m.body)
	if len(s.packed) >= len(m.body) {
		return
	}
	m.header = maps.Clone(m.header)
	m.header["Content-Encoding"] = []string{"gzip"}
	m.plain, m.body = m.body, s.packed
}
