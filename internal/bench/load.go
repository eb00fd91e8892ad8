package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/proto"
)

// Service, PostgreSQL and load share two processors, so the load writes its
// requests to the connection by itself, as load generators do: what a client
// library costs is not the service's.

// plain is one HTTP/1.1 connection that is kept alive, for one caller.
type plain struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

// post sends body as JSON and expects 200.
func (c *plain) post(ctx context.Context, path string, body []byte) error {
	c.buf = fmt.Appendf(c.buf[:0], "POST %s HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		path, benchToken, len(body))
	c.buf = append(c.buf, body...)
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.conn.SetDeadline(deadline)
	}
	if _, err := c.conn.Write(c.buf); err != nil {
		return err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return err
	}
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", res.Status, answer)
	}
	return err
}

// grpcConn is one cleartext HTTP/2 connection with one gRPC call at a time.
type grpcConn struct {
	conn   net.Conn
	framer *http2.Framer
	out    *bufio.Writer
	enc    *hpack.Encoder
	block  bytes.Buffer
	buf    []byte
	stream uint32
	taken  int // bytes of answers not yet given back to the connection's window
}

func newGRPC(conn net.Conn) (*grpcConn, error) {
	c := &grpcConn{conn: conn, out: bufio.NewWriter(conn), stream: 1}
	c.framer = http2.NewFramer(c.out, bufio.NewReader(conn))
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	_, err := c.out.WriteString(http2.ClientPreface)
	return c, errors.Join(err, c.framer.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 0}), c.out.Flush())
}

// call makes a unary call and expects OK; the answer is not decoded.
func (c *grpcConn) call(ctx context.Context, method string, req proto.Message) error {
	c.buf = append(c.buf[:0], 0, 0, 0, 0, 0)
	var err error
	if c.buf, err = (proto.MarshalOptions{}).MarshalAppend(c.buf, req); err != nil {
		return err
	}
	binary.BigEndian.PutUint32(c.buf[1:], uint32(len(c.buf)-5)) // #nosec G115 -- a small message
	c.block.Reset()
	for _, h := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "bench"},
		{"content-type", "application/grpc+proto"}, {"te", "trailers"}, {"authorization", "Bearer " + benchToken},
	} {
		if err := c.enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}); err != nil {
			return err
		}
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = c.conn.SetDeadline(deadline)
	}
	id := c.stream
	c.stream += 2
	err = errors.Join(
		c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.block.Bytes(), EndHeaders: true}),
		c.framer.WriteData(id, true, c.buf))
	if c.taken > 16<<10 {
		err = errors.Join(err, c.framer.WriteWindowUpdate(0, uint32(c.taken))) // #nosec G115 -- under a window
		c.taken = 0
	}
	if err = errors.Join(err, c.out.Flush()); err != nil {
		return err
	}
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return err
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := errors.Join(c.framer.WriteSettingsAck(), c.out.Flush()); err != nil {
					return err
				}
			}
		case *http2.PingFrame:
			if !f.IsAck() {
				if err := errors.Join(c.framer.WritePing(true, f.Data), c.out.Flush()); err != nil {
					return err
				}
			}
		case *http2.DataFrame:
			c.taken += len(f.Data())
		case *http2.MetaHeadersFrame:
			for _, h := range f.Fields {
				if h.Name == "grpc-status" && h.Value != "0" {
					return fmt.Errorf("gRPC status %s: %v", h.Value, f.Fields)
				}
			}
			if f.StreamEnded() {
				return nil
			}
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return fmt.Errorf("the server ended the call: %v", frame)
		}
	}
}

// dial opens n connections to the address of a URL.
func dial(url string, n int) ([]net.Conn, func(), error) {
	conns := make([]net.Conn, 0, n)
	closeAll := func() {
		for _, c := range conns {
			_ = c.Close()
		}
	}
	for range n {
		c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}
