package consumers

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/google/uuid"
	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
)

// folder writes mails as files.
type folder struct{ dir string }

func newFolder(dir string) (*folder, error) {
	if dir == "" {
		return nil, errors.New("consumers: mail needs a server or a folder")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("consumers: the folder for mails: %w", err)
	}
	return &folder{dir: dir}, nil
}

func (f *folder) repeatable() bool { return true }
func (f *folder) close()           {}

func (f *folder) send(_ context.Context, id uuid.UUID, _, _ string, msg *gomail.Msg, handover func() error) error {
	var text bytes.Buffer
	if _, err := msg.WriteTo(&text); err != nil {
		return &Failure{Class: "message", Err: errors.New("the mail cannot be written")}
	}
	if err := handover(); err != nil {
		return &Failure{Class: "database", Outage: true, Err: err}
	}
	name := filepath.Join(f.dir, id.String()+".eml")
	tmp, err := os.CreateTemp(f.dir, id.String()+".*.tmp") // mode 0600
	if err == nil {
		_, err = tmp.Write(text.Bytes())
		if serr := tmp.Sync(); err == nil {
			err = serr
		}
		if cerr := tmp.Close(); err == nil {
			err = cerr
		}
		if err == nil {
			err = os.Rename(tmp.Name(), name)
		}
		if err != nil {
			os.Remove(tmp.Name())
		}
	}
	if err != nil {
		return &Failure{Class: "folder", Outage: true, Err: err}
	}
	return nil
}

// smtpTimeout bounds each exchange with the server. RFC 5321 allows servers
// minutes for the confirmation; the handler's own deadline is shorter.
const smtpTimeout = 90 * time.Second

// idleConnections are kept for the next mail.
const idleConnections = 8

// smtpServer sends mails to a server.
type smtpServer struct {
	client *gomail.Client
	idle   chan *smtp.Client
}

func newSMTP(raw string) (*smtpServer, string, error) {
	bad := errors.New("consumers: the mail server's URL must look like smtp://user:password@host:port")
	u, err := url.Parse(raw) // its error would show the password
	if err != nil || u.Hostname() == "" {
		return nil, "", bad
	}
	opts := []gomail.Option{gomail.WithTimeout(smtpTimeout)}
	port := 587
	switch u.Scheme {
	case "smtp":
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSOpportunistic))
		if u.User == nil {
			port = 25
		}
	case "starttls":
		opts = append(opts, gomail.WithTLSPolicy(gomail.TLSMandatory))
	case "smtps":
		opts = append(opts, gomail.WithSSL())
		port = 465
	default:
		return nil, "", bad
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return nil, "", bad
		}
	}
	opts = append(opts, gomail.WithPort(port))
	if u.User != nil {
		password, _ := u.User.Password()
		opts = append(opts, gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover), gomail.WithUsername(u.User.Username()), gomail.WithPassword(password))
	}
	client, err := gomail.NewClient(u.Hostname(), opts...)
	if err != nil {
		return nil, "", bad
	}
	return &smtpServer{client: client, idle: make(chan *smtp.Client, idleConnections)}, u.Query().Get("from"), nil
}

func (s *smtpServer) repeatable() bool { return false }

func (s *smtpServer) close() {
	for {
		select {
		case c := <-s.idle:
			_ = c.Quit()
		default:
			return
		}
	}
}

// connect returns a connection that has answered MAIL FROM.
func (s *smtpServer) connect(ctx context.Context, from string) (*smtp.Client, error) {
	for {
		select {
		case c := <-s.idle:
			if c.UpdateDeadline(smtpTimeout) == nil && c.Mail(from) == nil {
				return c, nil
			}
			_ = c.Close() // the server got tired of waiting
			continue
		default:
		}
		c, err := s.client.DialToSMTPClientWithContext(ctx)
		if err != nil {
			return nil, &Failure{Class: "smtp_unreachable", Outage: true, Err: replyOnly(err)}
		}
		if err := c.Mail(from); err != nil {
			_ = c.Close()
			return nil, &Failure{Class: "sender_refused", Outage: true, Err: replyOnly(err)}
		}
		return c, nil
	}
}

func (s *smtpServer) send(ctx context.Context, _ uuid.UUID, from, to string, msg *gomail.Msg, handover func() error) error {
	var text bytes.Buffer
	if _, err := msg.WriteTo(&text); err != nil {
		return &Failure{Class: "message", Err: errors.New("the mail cannot be written")}
	}
	c, err := s.connect(ctx, "<"+from+">")
	if err != nil {
		return err
	}
	// The client's own Close would wait for the reply that does not come.
	hangUp := context.AfterFunc(ctx, func() { _ = c.Text.Close() })
	healthy := false
	defer func() {
		hangUp()
		if healthy {
			select {
			case s.idle <- c:
				return
			default:
			}
		}
		_ = c.Close()
	}()
	_ = c.UpdateDeadline(smtpTimeout)
	if err := c.Rcpt("<" + to + ">"); err != nil {
		healthy = isReply(err) && c.Reset() == nil
		return refusal(err, "address_refused")
	}
	w, err := c.Data()
	if err != nil {
		return refusal(err, "message_refused")
	}
	if _, err := w.Write(text.Bytes()); err != nil {
		return &Failure{Class: "smtp_unreachable", Outage: true}
	}
	// Up to here the server throws everything away when we go silent. From here
	// on, losing the lease does not hang up: that would only put a mail in doubt
	// whose fate is a moment away. The deadline still bounds it.
	if !hangUp() {
		return &Failure{Class: "smtp_unreachable", Outage: true, Err: context.Cause(ctx)}
	}
	if err := handover(); err != nil {
		if errors.Is(err, errInHand) {
			return err
		}
		return &Failure{Class: "database", Outage: true, Err: err}
	}
	if err := w.Close(); err != nil {
		if isReply(err) {
			healthy = c.Reset() == nil
			return refusal(err, "message_refused")
		}
		return &uncertainError{err: replyOnly(err)}
	}
	healthy = true
	return nil
}

func isReply(err error) bool {
	var reply *textproto.Error
	return errors.As(err, &reply)
}

// refusal sorts the server's answers: 5xx is about this mail and final, 421 is
// about the connection, other 4xx are about this mail for now.
func refusal(err error, class string) error {
	var reply *textproto.Error
	switch {
	case !errors.As(err, &reply):
		return &Failure{Class: "smtp_unreachable", Outage: true, Err: replyOnly(err)}
	case reply.Code == 421:
		return &Failure{Class: "smtp_unavailable", Outage: true, Err: replyOnly(err)}
	case reply.Code >= 500:
		return &Failure{Class: class, Permanent: true, Err: replyOnly(err)}
	}
	return &Failure{Class: class, Err: replyOnly(err)}
}

// replyOnly reduces an error to what is fit for a log: servers repeat addresses
// in their answers.
func replyOnly(err error) error {
	var reply *textproto.Error
	var n net.Error
	switch {
	case errors.As(err, &reply):
		return fmt.Errorf("the mail server answered %d", reply.Code)
	case errors.As(err, &n) && n.Timeout():
		return errors.New("the mail server did not answer in time")
	case errors.Is(err, context.Canceled):
		return context.Canceled
	}
	return errors.New("the connection to the mail server failed")
}
