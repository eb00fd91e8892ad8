package chaos

import (
	"errors"
	"io"
	"net"
	netmail "net/mail"
	"sync"

	"github.com/emersion/go-smtp"
)

// mailServer keeps the Message-IDs of the mails that it has accepted. It can be
// stopped, with every connection cut, and started again at the same address.
type mailServer struct {
	address string

	mu      sync.Mutex
	got     map[string]int // by Message-ID
	running *smtp.Server
	ended   chan struct{}
}

func (m *mailServer) start() error {
	address := m.address
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	m.address = l.Addr().String()
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &mailSession{m}, nil }))
	srv.Domain, srv.ErrorLog = "mail.test", quiet{}
	m.running, m.ended = srv, make(chan struct{})
	go func(ended chan struct{}) { defer close(ended); _ = srv.Serve(l) }(m.ended)
	return nil
}

func (m *mailServer) stop() {
	if m.running != nil {
		_ = m.running.Close()
		<-m.ended
		m.running = nil
	}
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

type mailSession struct{ m *mailServer }

func (*mailSession) Reset()                               {}
func (*mailSession) Logout() error                        { return nil }
func (*mailSession) Mail(string, *smtp.MailOptions) error { return nil }
func (*mailSession) Rcpt(string, *smtp.RcptOptions) error { return nil }

func (s *mailSession) Data(r io.Reader) error {
	msg, err := netmail.ReadMessage(r)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, msg.Body); err != nil {
		return err
	}
	id := msg.Header.Get("Message-ID")
	if id == "" {
		return errors.New("a mail without an id")
	}
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.got[id]++
	return nil
}
