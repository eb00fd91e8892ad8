package consumers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

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
// went missing, a second publisher, or a retry that came too late make the rest
// of the batch fail instead of leaving a hole or a duplicate. After a failure
// Last finds out where the stream ends.
type JetStream struct {
	cfg  JetStreamConfig
	conn *nats.Conn
	js   jetstream.JetStream

	mu     sync.Mutex
	synced bool   // last is the stream's last sequence
	last   uint64 // owned by the one Publish or Last at work
}

var (
	_ message.Publisher = (*JetStream)(nil)
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
	conn, err := nats.Connect(url,
		nats.Name("muster relay"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(500*time.Millisecond),
		// What could not be sent is published again in order; a buffer would
		// only send it twice.
		nats.ReconnectBufSize(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				cfg.Log.Warn("NATS is disconnected")
			}
		}),
		nats.ReconnectHandler(func(*nats.Conn) { cfg.Log.Info("NATS is connected again") }),
	)
	if err != nil {
		return nil, errors.New("consumers: MUSTER_NATS_URL is not usable") // the error may show credentials
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(1<<16))
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("consumers: JetStream: %w", err)
	}
	return &JetStream{cfg: cfg, conn: conn, js: js}, nil
}

// Close ends the connection.
func (j *JetStream) Close() error {
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
	j.mu.Lock()
	defer j.mu.Unlock()
	j.synced = false
	s, err := j.ensure(ctx)
	if err != nil {
		return eventstore.Checkpoint{}, false, fmt.Errorf("consumers: the JetStream stream: %w", err)
	}
	// What an earlier attempt still has under way arrives or not before the
	// answer to this request, which the same leader gives.
	info, err := s.Info(ctx)
	if err != nil {
		return eventstore.Checkpoint{}, false, fmt.Errorf("consumers: the JetStream stream: %w", err)
	}
	j.last = info.State.LastSeq
	if j.last == 0 {
		j.synced = true
		return eventstore.Checkpoint{}, true, nil
	}
	msg, err := s.GetMsg(ctx, j.last)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		j.synced = true
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
	j.synced = true
	return eventstore.Checkpoint{Epoch: int32(epoch), Position: eventstore.Position(position)}, true, nil
}

// errOutOfStep says that Last must be asked before more can be published.
var errOutOfStep = errors.New("consumers: where the stream ends is not known")

// Publish publishes a batch in order, all in flight at once, and waits for all
// acknowledgements.
func (j *JetStream) Publish(_ string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	ctx := messages[0].Context()
	j.mu.Lock()
	defer j.mu.Unlock()
	if !j.synced {
		return errOutOfStep
	}
	j.synced = false
	futures := make([]jetstream.PubAckFuture, len(messages))
	for i, m := range messages {
		// Eight headers fit into a map's first group; options would add to it one
		// by one. That it is our stream the first message makes sure of: the
		// others expect its sequence.
		v := []string{
			m.Metadata.Get(MetaPosition), m.Metadata.Get(MetaEpoch), m.Metadata.Get(MetaEventID), m.Metadata.Get(MetaType),
			m.Metadata.Get(MetaStream), m.Metadata.Get(MetaSequence), m.UUID, strconv.FormatUint(j.last+uint64(i), 10),
		}
		// A retry behind its successors would be refused anyway.
		opts := []jetstream.PublishOpt{jetstream.WithRetryAttempts(0)}
		if i == 0 {
			opts = append(opts, jetstream.WithExpectStream(j.cfg.Stream))
		}
		var err error
		futures[i], err = j.js.PublishMsgAsync(&nats.Msg{
			Subject: m.Metadata.Get(MetaSubject),
			Data:    m.Payload,
			Header: nats.Header{
				HeaderPosition: v[0:1:1], HeaderEpoch: v[1:2:2], HeaderEventID: v[2:3:3], HeaderType: v[3:4:4],
				HeaderStream: v[4:5:5], HeaderSequence: v[5:6:6],
				jetstream.MsgIDHeader: v[6:7:7], jetstream.ExpectedLastSeqHeader: v[7:8:8],
			},
		}, opts...)
		if err != nil {
			return fmt.Errorf("consumers: publishing: %w", err)
		}
	}
	silent := time.NewTimer(j.cfg.AckTimeout)
	defer silent.Stop()
	for i, f := range futures {
		select {
		case ack := <-f.Ok():
			if i%100 == 99 {
				silent.Reset(j.cfg.AckTimeout)
			}
			if ack.Duplicate || ack.Sequence != j.last+uint64(i)+1 {
				return fmt.Errorf("consumers: the stream has sequence %d where %d was expected", ack.Sequence, j.last+uint64(i)+1)
			}
		case err := <-f.Err():
			return fmt.Errorf("consumers: publishing: %w", err)
		case <-silent.C:
			return errors.New("consumers: publishing: the broker acknowledges nothing any more")
		case <-ctx.Done():
			return fmt.Errorf("consumers: publishing: %w", ctx.Err())
		}
	}
	j.last += uint64(len(messages))
	j.synced = true
	return nil
}
