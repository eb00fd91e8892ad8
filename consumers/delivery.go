package consumers

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// effects is the name space of effect ids, made once for this purpose.
var effects = uuid.MustParse("6d757374-6572-5e66-8ec7-1d0f7fe7c3a1")

// EffectID names one effect of an event on the world, the same in each process
// and at each try: UUIDv5 over the consumer's name, the event's id and an
// index, which is 0 for the message itself and counts from 1 when one event
// leads to several effects.
func EffectID(consumer string, event ulid.ULID, index int) uuid.UUID {
	b := make([]byte, 0, 64+len(consumer))
	b = append(b, consumer...)
	b = append(b, 0)
	b = append(b, event[:]...)
	b = strconv.AppendInt(b, int64(index), 10)
	return uuid.NewSHA1(effects, b)
}

// delivery is one handing of one event to a handler. It travels in the
// message's context.
type delivery struct {
	event   eventstore.Event
	decoded domain.Event
	err     error // why it is not decoded

	mu      sync.Mutex
	failure error // what the handler returned, if Classify is on the router
}

type deliveryKey struct{}

// messageContext ends when the message is acked or nacked, when its time is
// up, when its lease is lost, or when the subscription ends. The machinery for
// that is only built when a handler asks for it: most never do.
type messageContext struct {
	context.Context // the subscription's
	delivery
	deadline time.Time // zero for none

	live   sync.Mutex // guards what follows
	inner  context.Context
	cancel context.CancelFunc
	ended  bool
}

func (c *messageContext) Value(key any) any {
	if _, ok := key.(deliveryKey); ok {
		return &c.delivery
	}
	return c.Context.Value(key)
}

func (c *messageContext) Deadline() (time.Time, bool) {
	outer, ok := c.Context.Deadline()
	if c.deadline.IsZero() || ok && outer.Before(c.deadline) {
		return outer, ok
	}
	return c.deadline, true
}

func (c *messageContext) made() context.Context {
	c.live.Lock()
	defer c.live.Unlock()
	if c.inner == nil {
		if c.deadline.IsZero() {
			c.inner, c.cancel = context.WithCancel(c.Context)
		} else {
			c.inner, c.cancel = context.WithDeadline(c.Context, c.deadline)
		}
		if c.ended {
			c.cancel()
		}
	}
	return c.inner
}

func (c *messageContext) Done() <-chan struct{} { return c.made().Done() }
func (c *messageContext) Err() error            { return c.made().Err() }

// end releases what was made and makes sure that whoever asks later learns
// that it is over.
func (c *messageContext) end() {
	c.live.Lock()
	defer c.live.Unlock()
	c.ended = true
	if c.cancel != nil {
		c.cancel()
	}
}

// about fills a new context in. Its error says that the event is not one that
// any program could read.
func (c *messageContext) about(ctx context.Context, e *eventstore.Event) error {
	c.Context, c.event = ctx, *e
	c.decoded, c.err = decodeDomain(*e)
	if c.err != nil && !errors.Is(c.err, domain.ErrUnknownEvent) {
		return c.err
	}
	return nil
}

// appendPayload appends the event's document.
func (d *delivery) appendPayload(b []byte) []byte {
	return appendDocument(b, d.event, d.decoded, d.err != nil)
}

// newMessage makes the message of one delivery.
func newMessage(ctx *messageContext, consumer string, token int64, attempt int) *message.Message {
	e := &ctx.event
	effect := EffectID(consumer, e.ID, 0).String()
	// One string for the rest that has to be written out.
	var room [192]byte
	var ends [6]int
	b := room[:ulid.EncodedSize]
	_ = e.ID.MarshalTextTo(b) // cannot fail: the size is right
	ends[0] = len(b)
	for i, n := range [...]int64{e.Sequence, int64(e.Position), int64(e.Epoch), token} {
		b = strconv.AppendInt(b, n, 10)
		ends[1+i] = len(b)
	}
	b = e.At.UTC().AppendFormat(b, time.RFC3339Nano)
	ends[5] = len(b)
	text := string(b)

	msg := message.NewMessage(effect, ctx.appendPayload(make([]byte, 0, 384)))
	msg.SetContext(ctx)
	msg.Metadata = message.Metadata{
		MetaEventID:  text[:ends[0]],
		MetaType:     e.Type,
		MetaStream:   e.Stream,
		MetaSequence: text[ends[0]:ends[1]],
		MetaPosition: text[ends[1]:ends[2]],
		MetaEpoch:    text[ends[2]:ends[3]],
		MetaOrg:      e.Org,
		MetaAt:       text[ends[4]:ends[5]],
		MetaEffectID: effect,
		MetaConsumer: consumer,
		MetaAttempt:  strconv.Itoa(attempt),
		MetaToken:    text[ends[3]:ends[4]],
	}
	return msg
}
