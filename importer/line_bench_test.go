package importer

import (
	"fmt"
	"testing"
	"time"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/domain/password"
)

// BenchmarkPrepare is what a line costs before it goes to the store: decoding,
// the edge's rules, normalising, deciding, encoding.
func BenchmarkPrepare(b *testing.B) {
	var text string
	c := &chunk{first: 1}
	for n := range chunkLines {
		from := len(text)
		text += fmt.Sprintf(`{"userName":"person-%d@example.test","profile":{"firstName":"Ada","lastName":"Lind-%d","preferredLanguage":"sv"},"email":{"email":"person-%d@example.test","isEmailVerified":true},`+
			`"hashedPassword":{"value":"$2y$12$hXUrnqdq1RIIYZ2HPytIIe5lXdIvbhqrTvdPsSF7o.jFh817Z6lwm"},"idps":[{"configId":"google","externalUserId":"11000000000%d"}]}`, n, n, n, n)
		c.spans = append(c.spans, span{line: int64(n + 1), from: from, to: len(text)})
	}
	c.data = []byte(text)
	r := &Run{jobs: &Jobs{Importer: &Importer{Now: time.Now}}, caller: Caller{ID: "t", Org: "o"}, id: "j", startedAt: time.Now(), lineKey: make([]byte, 32),
		secrets: &jobSecrets{job: "j", known: password.Secrets{}, line: map[string]int64{}}, policy: domain.DefaultPolicy()}
	r.policy.Recognise = r.secrets.recognise
	b.ReportAllocs()
	lines := 0
	for b.Loop() {
		r.prepare(c, r.policy)
		for i := range c.rows {
			w := &c.rows[i]
			if w.err != nil {
				b.Fatal(w.err)
			}
			toAppend(w.human.Import(w.facts), "t", w.facts.At)
		}
		lines += len(c.rows)
	}
	b.ReportMetric(float64(lines)/b.Elapsed().Seconds(), "lines/s")
}
