package importer

import (
	"strconv"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/importer/jsontext"
)

// verdict is what became of a line.
type verdict uint8

const (
	undecided verdict = iota
	created
	updated
	skipped
	failed
)

var verdictNames = [...]string{undecided: "", created: "created", updated: "updated", skipped: "skipped", failed: "failed"}

// appendAnswer appends the answer to a line, with its line break.
func (r *Run) appendAnswer(dst []byte, w *row) []byte {
	dst = append(dst, `{"line":`...)
	dst = strconv.AppendInt(dst, w.line, 10)
	dst = append(dst, `,"outcome":"`...)
	dst = append(dst, verdictNames[w.verdict]...)
	dst = append(dst, '"')
	if w.user != "" {
		dst = append(dst, `,"userId":`...)
		dst = jsontext.AppendString(dst, w.user)
	}
	if w.result.Last > 0 {
		dst = append(dst, `,"details":{"sequence":"`...)
		dst = strconv.AppendInt(dst, w.result.Last, 10)
		dst = append(dst, '"')
		if w.verdict == created {
			dst = appendTime(append(dst, `,"creationDate":`...), w.result.At)
		}
		dst = appendTime(append(dst, `,"changeDate":`...), w.result.At)
		dst = append(dst, `,"resourceOwner":`...)
		dst = jsontext.AppendString(dst, r.caller.Org)
		dst = append(dst, '}')
	}
	if w.err != nil {
		dst = appendError(append(dst, `,"error":`...), w.err)
		if w.err.Field != "" {
			dst = jsontext.AppendString(append(dst, `,"field":`...), w.err.Field)
		}
	}
	if len(w.warnings) > 0 && w.verdict != failed {
		dst = append(dst, `,"warnings":[`...)
		for i, n := range w.warnings {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = jsontext.AppendString(append(dst, `{"field":`...), n.Field)
			dst = jsontext.AppendString(append(dst, `,"text":`...), n.Text)
			dst = append(dst, '}')
		}
		dst = append(dst, ']')
	}
	return append(dst, "}\n"...)
}

// appendLink appends the answer to a line with the link that a passkey is
// registered with, in the form of the single import. It goes to the caller
// only, and is kept nowhere.
func appendLink(dst, answer []byte, link string, lifetime time.Duration) []byte {
	dst = append(dst, answer[:len(answer)-len("}\n")]...)
	dst = jsontext.AppendString(append(dst, `,"passwordlessRegistration":{"link":`...), link)
	seconds := strconv.FormatInt(int64(lifetime/time.Second), 10)
	dst = append(dst, `,"lifetime":"`+seconds+`s","expiration":"`+seconds+`s"}}`...)
	return append(dst, '\n')
}

// appendError appends an error as the wire shows it (google.rpc.Status).
func appendError(dst []byte, e *domain.Error) []byte {
	dst = strconv.AppendInt(append(dst, `{"code":`...), int64(e.Kind), 10)
	dst = jsontext.AppendString(append(dst, `,"message":`...), e.Error())
	if e.ID != "" {
		dst = append(dst, `,"details":[{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":`...)
		dst = jsontext.AppendString(dst, e.ID)
		dst = jsontext.AppendString(append(dst, `,"message":`...), e.Message)
		dst = append(dst, `}]`...)
	}
	return append(dst, '}')
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = append(dst, '"')
	dst = t.UTC().AppendFormat(dst, "2006-01-02T15:04:05.999999Z")
	return append(dst, '"')
}

// lineOf reads the number that an answer begins with.
func lineOf(answer []byte) int64 {
	n := int64(0)
	for _, c := range answer[min(len(answer), len(`{"line":`)):] {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int64(c-'0')
	}
	return n
}
