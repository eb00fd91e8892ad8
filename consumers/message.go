package consumers

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/oklog/ulid/v2"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// The metadata of each message. All values are strings; numbers are decimal.
const (
	MetaEventID  = "event_id" // the event's ULID
	MetaType     = "type"     // "HumanAdded"
	MetaStream   = "stream"   // the user's id
	MetaSequence = "sequence" // within the stream
	MetaPosition = "position" // within the log, dense
	MetaEpoch    = "epoch"    // the history that the position counts in
	MetaOrg      = "org"      // the organisation that owns the stream
	MetaAt       = "at"       // RFC 3339, UTC
	MetaEffectID = "effect_id"
	MetaConsumer = "consumer"
	MetaAttempt  = "attempt" // 1 for the first try that this process makes
	MetaToken    = "token"   // the fencing token of the lease that delivered it
)

// decodeDomain returns the domain's event, and nil for this package's own. The
// error wraps domain.ErrUnknownEvent for what only a later program knows.
func decodeDomain(e eventstore.Event) (domain.Event, error) {
	if e.Type == TypeEventSkipped && e.Schema == 1 && strings.HasPrefix(e.Stream, StreamPrefix) {
		return nil, nil
	}
	return domain.Decode(e.Type, e.Schema, e.Data, e.Personal)
}

// EventOf returns the event that a message is about: decoded, and as it was
// committed. With the option OpenSealed its personal fields are filled, unless
// the subject has been erased.
//
// The domain event is nil for this package's own EventSkipped. An event whose
// type or schema only a later program knows comes with an error that wraps
// domain.ErrUnknownEvent, and as it was committed all the same: the handler
// decides whether it can go on without knowing what happened; returning the
// error parks the stream. A message that
// lost its context on the way (a copy, or one that came through a broker) is
// read from its payload; credentials are not in there, so they stay zero.
func EventOf(msg *message.Message) (domain.Event, eventstore.Event, error) {
	if d, ok := msg.Context().Value(deliveryKey{}).(*delivery); ok {
		return d.decoded, d.event, undecodable(d.err)
	}
	doc, err := ParseDocument(msg.Payload)
	if err != nil {
		return nil, eventstore.Event{}, err
	}
	de, err := decodeDomain(doc.Event)
	return de, doc.Event, undecodable(err)
}

// undecodable makes a handler that returns what EventOf gave it park the stream
// at once: trying again reads the same.
func undecodable(err error) error {
	if err == nil {
		return nil
	}
	return &Failure{Class: ClassUndecodable, Permanent: true, Err: err}
}

// Document is the JSON object that describes an event to the outside: the
// payload of each message, webhook and broker message. Its keys:
//
//	position  number   in the log; dense within an epoch
//	epoch     number
//	id        string   the event's ULID
//	stream    string   the user's id
//	sequence  number   in the stream
//	slice     number   0 to 1023
//	type      string   "HumanAdded"
//	schema    number
//	org       string
//	actor     string
//	at        string   RFC 3339, UTC, microseconds
//	data      object   the event's fields in camelCase; a field with the zero
//	                   value is left out. Personal fields appear only where
//	                   the consumer opens sealed data. Credentials (codes,
//	                   hashes, secrets, passkeys) never appear.
//	unknown   true     this program does not know the type, or the schema of
//	                   the type: a later one wrote the event. data is empty
//	sealed    true     personal fields exist and are not in data
//	erased    true     personal fields existed; the subject was erased
//	raw       string   base64 of the open part as stored, a message of
//	                   proto/muster/event/v1/event.proto
type Document struct {
	// Event has no Sealed and no Personal part.
	Event eventstore.Event
	// Fields is the object under "data".
	Fields json.RawMessage
	// Unknown says that whoever made the document did not know such an event.
	Unknown bool
}

// ParseDocument reads a Document. Its errors hold none of the input.
func ParseDocument(payload []byte) (Document, error) {
	var w struct {
		Position eventstore.Position `json:"position"`
		Epoch    int32               `json:"epoch"`
		ID       ulid.ULID           `json:"id"`
		Stream   string              `json:"stream"`
		Sequence int64               `json:"sequence"`
		Slice    int16               `json:"slice"`
		Type     string              `json:"type"`
		Schema   int16               `json:"schema"`
		Org      string              `json:"org"`
		Actor    string              `json:"actor"`
		At       time.Time           `json:"at"`
		Data     json.RawMessage     `json:"data"`
		Unknown  bool                `json:"unknown"`
		Erased   bool                `json:"erased"`
		Raw      []byte              `json:"raw"`
	}
	if err := json.Unmarshal(payload, &w); err != nil {
		return Document{}, errors.New("consumers: payload is not an event document")
	}
	return Document{
		Event: eventstore.Event{
			Position: w.Position, Epoch: w.Epoch, ID: w.ID, Stream: w.Stream, Sequence: w.Sequence,
			Slice: w.Slice, Type: w.Type, Schema: w.Schema, Org: w.Org, Actor: w.Actor,
			At: w.At, Data: w.Raw, Erased: w.Erased,
		},
		Fields: w.Data, Unknown: w.Unknown,
	}, nil
}

// AppendDocument appends the Document of an event to dst. Personal fields are
// in it exactly when e.Personal is and the event is known. The error is of a
// payload that is damaged.
func AppendDocument(dst []byte, e eventstore.Event) ([]byte, error) {
	de, err := decodeDomain(e)
	if err != nil && !errors.Is(err, domain.ErrUnknownEvent) {
		return dst, fmt.Errorf("consumers: event at position %d: %w", e.Position, err)
	}
	return appendDocument(dst, e, de, err != nil), nil
}

func appendDocument(b []byte, e eventstore.Event, de domain.Event, unknown bool) []byte {
	b = append(b, `{"position":`...)
	b = strconv.AppendInt(b, int64(e.Position), 10)
	b = append(b, `,"epoch":`...)
	b = strconv.AppendInt(b, int64(e.Epoch), 10)
	b = append(b, `,"id":"`...)
	n := len(b)
	b = append(b, make([]byte, ulid.EncodedSize)...)
	_ = e.ID.MarshalTextTo(b[n:]) // cannot fail: the size is right
	b = append(b, `","stream":`...)
	b = appendString(b, e.Stream)
	b = append(b, `,"sequence":`...)
	b = strconv.AppendInt(b, e.Sequence, 10)
	b = append(b, `,"slice":`...)
	b = strconv.AppendInt(b, int64(e.Slice), 10)
	b = append(b, `,"type":`...)
	b = appendString(b, e.Type)
	b = append(b, `,"schema":`...)
	b = strconv.AppendInt(b, int64(e.Schema), 10)
	b = append(b, `,"org":`...)
	b = appendString(b, e.Org)
	b = append(b, `,"actor":`...)
	b = appendString(b, e.Actor)
	b = append(b, `,"at":"`...)
	b = e.At.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","data":`...)
	if de != nil {
		b = appendFields(b, de)
	} else {
		b = append(b, `{}`...)
	}
	if unknown {
		b = append(b, `,"unknown":true`...)
	}
	switch {
	case e.Erased:
		b = append(b, `,"erased":true`...)
	case len(e.Sealed) > 0 && (e.Personal == nil || unknown):
		b = append(b, `,"sealed":true`...)
	}
	if len(e.Data) > 0 {
		b = append(b, `,"raw":"`...)
		b = base64.StdEncoding.AppendEncode(b, e.Data)
		b = append(b, '"')
	}
	return append(b, '}')
}

// appendString appends s as a JSON string.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= 0x7f || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			q, _ := json.Marshal(s) // a string always marshals
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
