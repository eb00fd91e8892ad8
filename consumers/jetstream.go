package consumers

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/eventstore"
)

// The headers of each message in JetStream, besides Nats-Msg-Id, which is the
// effect id. A consumer proves completeness by HeaderPosition, which is dense
// within an epoch, and fills a hole from GET /v1/events?after=.
const (
	HeaderPosition = "Muster-Position"
	HeaderEpoch    = "Muster-Epoch"
	HeaderEventID  = "Muster-Event-Id"
	HeaderType     = "Muster-Type"
	HeaderStream   = "Muster-Stream"
	HeaderSequence = "Muster-Sequence"
)

// JetStreamConfig says which stream to publish to. The zero value of a field
// takes the default.
type JetStreamConfig struct {
	// Stream is its name. Default "MUSTER". It is created, with file storage
	// and the subjects muster.>, unless it exists.
	Stream string
	// Replicas of a new stream. Default: as many of 5, 3, 1 as the cluster
	// allows; a stream that this package made with fewer, while a node was
	// missing, gets more at the next connect.
	Replicas int
	// AckTimeout bounds how long no acknowledgement comes while some are due:
	// those that a node took with it never do. It bounds each question to the
	// server as well. Default 3 s.
	AckTimeout time.Duration
	Log        *slog.Logger
}

// JetStream is a Watermill Publisher to a JetStream stream that it alone writes
// to. Each message names the sequence that it expects before it: a message that
// went missing, a second publisher, or a retry that came too late make all that
// is behind it fail instead of leaving a hole or a duplicate. After a failure
// Last finds out where the stream ends.
//
// A message that was stored right behind its predecessor proves that this one
// was, too, so only one in ackEvery asks for an acknowledgement.
type JetStream struct {
	cfg  JetStreamConfig
	conn *nats.Conn
	js   jetstream.JetStream // for questions about the stream

	// sending is held by the one Send or Last at work, which owns these.
	sending sync.Mutex
	inbox   string // where acknowledgements go, with line and sequence behind it
	lines   uint64 // how many there were
	header  nats.Header
	values  [len(headers)]string // what header shows
	text    []byte

	mu   sync.Mutex // is taken after sending
	line *line      // nil: where the stream ends is not known
}

// line is an unbroken run of messages from the stream's end on. JetStream.mu
// guards all of it but number.
type line struct {
	number      uint64
	sent, acked uint64        // the stream's sequences
	err         error         // why it is broken: nothing more of it is accepted
	heard       time.Time     // when the last acknowledgement came, or the first became due
	moved       chan struct{} // closed at the next acknowledgement or failure; nil when nobody waits
}

const (
	// ackEvery is how many messages there are to an acknowledgement.
	ackEvery = 64
	// maxInFlight bounds the messages sent and not acknowledged. A server drops
	// what does not fit into the stream's queue: 10,000 before NATS 2.12.
	maxInFlight = 8192
)

var (
	_ message.Publisher = (*JetStream)(nil)
	_ Sender            = (*JetStream)(nil)
	_ Recaller          = (*JetStream)(nil)
)

// NewJetStream connects to one or several servers, separated by commas. It
// returns at once, even when none answers yet, and keeps trying.
func NewJetStream(url string, cfg JetStreamConfig) (*JetStream, error) {
	if cfg.Stream == "" {
		cfg.Stream = "MUSTER"
	}
	if cfg.AckTimeout <= 0 {
		cfg.AckTimeout = 3 * time.Second
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	j := &JetStream{cfg: cfg, header: make(nats.Header, len(headers))}
	for i, name := range headers {
		j.header[name] = j.values[i : i+1 : i+1]
	}
	conn, err := nats.Connect(url,
		nats.Name("muster relay"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond),
		// What could not be sent is published again in order; a buffer would
		// only send it twice.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			j.breakLine(nats.ErrDisconnected) // acknowledgements under way are lost
			if err != nil {
				cfg.Log.Warn("NATS is disconnected")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { cfg.Log.Info("NATS is connected again") }),
	)
	if err != nil {
		return nil, errors.New("consumers: MUSTER_NATS_URL is not usable") // the error may show credentials
	}
	js, err := jetstream.New(conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("consumers: JetStream: %w", err)
	}
	j.conn, j.js = conn, js
	return j, nil
}

// Close ends the connection. What is not acknowledged fails.
func (j *JetStream) Close() error {
	j.breakLine(nats.ErrConnectionClosed)
	j.conn.Close()
	return nil
}

// streamDescription marks the streams that this package made.
const streamDescription = "the log of Muster, in order of position"

// replicas are how many a stream may have, the most first.
var replicas = []int{5, 3, 1}

// ensure returns the stream, made if need be, with as many replicas as can be
// had.
func (j *JetStream) ensure(ctx context.Context) (jetstream.Stream, error) {
	s, err := j.js.Stream(ctx, j.cfg.Stream)
	if err == nil {
		return j.raise(ctx, s), nil
	}
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil, err
	}
	tries := replicas
	if j.cfg.Replicas > 0 {
		tries = []int{j.cfg.Replicas}
	}
	for _, n := range tries {
		s, err = j.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: j.cfg.Stream, Description: streamDescription,
			Subjects: []string{RelayTopic + ".>"}, Storage: jetstream.FileStorage, Replicas: n,
			DenyDelete: true, AllowDirect: true, Duplicates: 2 * time.Minute,
		})
		if err == nil {
			j.cfg.Log.Info("created the JetStream stream", "stream", j.cfg.Stream, "replicas", n)
			return s, nil
		}
	}
	return nil, err
}

// raise gives a stream of ours more replicas where the cluster allows more than
// it did when the stream was made. That it does not is no failure.
func (j *JetStream) raise(ctx context.Context, s jetstream.Stream) jetstream.Stream {
	cfg := s.CachedInfo().Config
	if j.cfg.Replicas > 0 || cfg.Description != streamDescription {
		return s
	}
	now := cfg.Replicas
	for _, n := range replicas {
		if n <= now {
			break
		}
		cfg.Replicas = n
		if raised, err := j.js.UpdateStream(ctx, cfg); err == nil {
			j.cfg.Log.Info("the JetStream stream has more replicas", "stream", j.cfg.Stream, "replicas", n)
			return raised
		}
	}
	return s
}

// Last implements Recaller.
func (j *JetStream) Last(ctx context.Context) (eventstore.Checkpoint, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, j.cfg.AckTimeout)
	defer cancel()
	j.sending.Lock()
	defer j.sending.Unlock()
	j.begin(nil)
	s, err := j.ensure(ctx)
	if err != nil {
		return eventstore.Checkpoint{}, false, fmt.Errorf("consumers: the JetStream stream: %w", err)
	}
	if j.inbox == "" {
		inbox := j.conn.NewInbox()
		if _, err := j.conn.Subscribe(inbox+".*.*", j.acknowledge); err != nil {
			return eventstore.Checkpoint{}, false, fmt.Errorf("consumers: JetStream: %w", err)
		}
		j.inbox = inbox
	}
	// What an earlier line still has under way may be stored after the answer:
	// then the sequences that the next one expects do not hold, it fails, and
	// this is asked again.
	info, err := s.Info(ctx)
	if err != nil {
		return eventstore.Checkpoint{}, false, fmt.Errorf("consumers: the JetStream stream: %w", err)
	}
	last := info.State.LastSeq
	start := func() {
		j.lines++
		j.begin(&line{number: j.lines, sent: last, acked: last})
	}
	if last == 0 {
		start()
		return eventstore.Checkpoint{}, true, nil
	}
	msg, err := s.GetMsg(ctx, last)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		start()
		return eventstore.Checkpoint{}, false, nil // purged, or aged out
	}
	if err != nil {
		return eventstore.Checkpoint{}, false, fmt.Errorf("consumers: the stream's last message: %w", err)
	}
	position, perr := strconv.ParseInt(msg.Header.Get(HeaderPosition), 10, 64)
	epoch, eerr := strconv.ParseInt(msg.Header.Get(HeaderEpoch), 10, 32)
	if perr != nil || eerr != nil {
		return eventstore.Checkpoint{}, false, fmt.Errorf("consumers: somebody else publishes to the stream %s", j.cfg.Stream)
	}
	start()
	return eventstore.Checkpoint{Epoch: int32(epoch), Position: eventstore.Position(position)}, true, nil
}

// begin replaces the line; nothing more of the former one is accepted.
func (j *JetStream) begin(l *line) {
	j.breakLine(errOutOfStep)
	j.mu.Lock()
	j.line = l
	j.mu.Unlock()
}

// breakLine makes all of the line that is not acknowledged fail.
func (j *JetStream) breakLine(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.line != nil {
		j.line.fail(err)
	}
}

// fail breaks a line, unless it is broken already. JetStream.mu is held.
func (l *line) fail(err error) {
	if l.err == nil {
		l.err = err
		l.wake()
	}
}

// wake lets those who wait look again. JetStream.mu is held.
func (l *line) wake() {
	if l.moved != nil {
		close(l.moved)
		l.moved = nil
	}
}

// errOutOfStep says that Last must be asked before more can be published.
var errOutOfStep = errors.New("consumers: where the stream ends is not known")

// Publish publishes a batch in order, all in flight at once, and waits until all
// of it is stored.
func (j *JetStream) Publish(topic string, messages ...*message.Message) error {
	stored, err := j.Send(topic, messages...)
	if err != nil {
		return err
	}
	return stored()
}

// Send implements Sender.
func (j *JetStream) Send(_ string, messages ...*message.Message) (stored func() error, err error) {
	if len(messages) == 0 {
		return func() error { return nil }, nil
	}
	ctx := messages[0].Context()
	j.sending.Lock()
	defer j.sending.Unlock()
	j.mu.Lock()
	l := j.line
	j.mu.Unlock()
	if l == nil {
		return nil, errOutOfStep
	}
	for rest, first := messages, true; len(rest) > 0; first = false {
		n := min(ackEvery, len(rest))
		before, err := j.reserve(ctx, l, n)
		if err != nil {
			return nil, err
		}
		if err := j.transmit(l, before, rest[:n], first); err != nil {
			j.mu.Lock()
			l.fail(err)
			j.mu.Unlock()
			return nil, fmt.Errorf("consumers: publishing: %w", err)
		}
		rest = rest[n:]
	}
	j.mu.Lock()
	through := l.sent // nobody else sends
	j.mu.Unlock()
	return func() error { return j.wait(ctx, l, through) }, nil
}

// reserve waits until n more messages may be in flight, counts them as sent, and
// returns the sequence before them.
func (j *JetStream) reserve(ctx context.Context, l *line, n int) (before uint64, err error) {
	j.mu.Lock()
	before = l.sent
	room := before - l.acked + uint64(n) // #nosec G115 -- at most ackEvery
	j.mu.Unlock()
	if room > maxInFlight {
		if err := j.wait(ctx, l, before-maxInFlight/2); err != nil {
			return 0, err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if l.err != nil {
		return 0, fmt.Errorf("consumers: publishing: %w", l.err)
	}
	if l.acked == l.sent {
		l.heard = time.Now()
	}
	l.sent += uint64(n) // #nosec G115 -- as above
	return before, nil
}

// wait waits until the stream has a sequence of the line and all before it.
func (j *JetStream) wait(ctx context.Context, l *line, sequence uint64) error {
	silent := time.NewTimer(j.cfg.AckTimeout)
	defer silent.Stop()
	for {
		j.mu.Lock()
		acked, err := l.acked, l.err
		left := time.Until(l.heard.Add(j.cfg.AckTimeout))
		if acked < sequence && err == nil && left <= 0 {
			err = errors.New("the broker acknowledges nothing any more")
			l.fail(err)
		}
		switch {
		case acked >= sequence:
			j.mu.Unlock()
			return nil
		case err != nil:
			j.mu.Unlock()
			return fmt.Errorf("consumers: publishing: %w", err)
		case l.moved == nil:
			l.moved = make(chan struct{})
		}
		moved := l.moved
		j.mu.Unlock()
		silent.Reset(left)
		select {
		case <-moved:
		case <-silent.C:
		case <-ctx.Done():
			return fmt.Errorf("consumers: publishing: %w", ctx.Err())
		}
	}
}

// headers are those of each message, in the order of JetStream.values. Eight fit
// into a map's first group.
var headers = [...]string{
	HeaderPosition, HeaderEpoch, HeaderEventID, HeaderType, HeaderStream, HeaderSequence,
	jetstream.MsgIDHeader, jetstream.ExpectedLastSeqHeader,
}

// transmit writes messages to the connection; the last one asks for an
// acknowledgement, which goes for all of them. That it is our stream a batch's
// first message makes sure of: the others expect its sequence.
func (j *JetStream) transmit(l *line, before uint64, messages []*message.Message, first bool) error {
	var msg nats.Msg
	parts := j.write(before, messages)
	for i, m := range messages {
		p := &parts[i]
		msg.Subject, msg.Data = p.subject, m.Payload
		j.values = p.headers
		if i == len(messages)-1 {
			msg.Reply = fmt.Sprintf("%s.%d.%d", j.inbox, l.number, before+uint64(len(messages)))
		}
		msg.Header = j.header
		if i == 0 && first {
			msg.Header = maps.Clone(j.header)
			msg.Header.Set(jetstream.ExpectedStreamHeader, j.cfg.Stream)
		}
		if err := j.conn.PublishMsg(&msg); err != nil {
			return err
		}
	}
	return nil
}

// part is what a message has besides its payload.
type part struct {
	subject string
	headers [len(headers)]string
}

// write finds out the subjects and headers of at most ackEvery messages: from
// their metadata, or, where they have none, from their events.
func (j *JetStream) write(before uint64, messages []*message.Message) []part {
	parts := make([]part, len(messages))
	b := j.text[:0] // all that has to be written out; it becomes one string
	var ends [ackEvery][6]int
	for i, m := range messages {
		h, sequence := &parts[i].headers, before+uint64(i)
		h[6] = m.UUID
		d, ok := m.Context().Value(deliveryKey{}).(*delivery)
		if m.Metadata != nil || !ok {
			parts[i].subject = m.Metadata.Get(MetaSubject)
			for k, key := range [...]string{MetaPosition, MetaEpoch, MetaEventID, MetaType, MetaStream, MetaSequence} {
				h[k] = m.Metadata.Get(key)
			}
			h[7] = strconv.FormatUint(sequence, 10)
			continue
		}
		e, end := &d.event, &ends[i]
		h[3], h[4] = e.Type, e.Stream
		b = appendSubject(b, e)
		end[0] = len(b)
		b = strconv.AppendInt(b, int64(e.Position), 10)
		end[1] = len(b)
		b = strconv.AppendInt(b, int64(e.Epoch), 10)
		end[2] = len(b)
		b = append(b, make([]byte, ulid.EncodedSize)...)
		_ = e.ID.MarshalTextTo(b[end[2]:]) // cannot fail: the size is right
		end[3] = len(b)
		b = strconv.AppendInt(b, e.Sequence, 10)
		end[4] = len(b)
		b = strconv.AppendUint(b, sequence, 10)
		end[5] = len(b)
	}
	text, begin := string(b), 0
	for i := range parts {
		if end := &ends[i]; end[0] > 0 {
			p := &parts[i]
			p.subject = text[begin:end[0]]
			p.headers[0], p.headers[1], p.headers[2] = text[end[0]:end[1]], text[end[1]:end[2]], text[end[2]:end[3]]
			p.headers[5], p.headers[7] = text[end[3]:end[4]], text[end[4]:end[5]]
			begin = end[5]
		}
	}
	j.text = b
	return parts
}

// acknowledgement is the server's answer to a message.
type acknowledgement struct {
	Stream    string `json:"stream"`
	Sequence  uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
	Error     *struct {
		Code        int    `json:"code"`
		Description string `json:"description"`
	} `json:"error"`
}

// acknowledge takes the answer to a message.
func (j *JetStream) acknowledge(m *nats.Msg) {
	rest, sequence := cutLast(m.Subject)
	_, number := cutLast(rest)
	j.mu.Lock()
	defer j.mu.Unlock()
	l := j.line
	if l == nil || l.err != nil || number != strconv.FormatUint(l.number, 10) {
		return // of a former line
	}
	want, _ := strconv.ParseUint(sequence, 10, 64) // we wrote it
	var a acknowledgement
	switch {
	case m.Header.Get("Status") == "503":
		l.fail(nats.ErrNoResponders)
	case json.Unmarshal(m.Data, &a) != nil:
		l.fail(jetstream.ErrInvalidJSAck)
	case a.Error != nil:
		l.fail(fmt.Errorf("the broker refuses: %s (%d)", a.Error.Description, a.Error.Code))
	case a.Stream != j.cfg.Stream || a.Duplicate || a.Sequence != want:
		l.fail(fmt.Errorf("the stream has sequence %d where %d was expected", a.Sequence, want))
	default:
		l.acked, l.heard = max(l.acked, want), time.Now()
		l.wake()
	}
}

// cutLast cuts off a subject's last token.
func cutLast(subject string) (rest, token string) {
	i := strings.LastIndexByte(subject, '.')
	return subject[:max(i, 0)], subject[i+1:]
}
