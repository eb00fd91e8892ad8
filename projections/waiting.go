package projections

import "context"

// Waiting counts, by import job, the users whose password only the old system
// knows: those who have not logged in yet. Jobs that nobody waits for are
// missing.
func (e *Engine) Waiting(ctx context.Context) (map[string]int64, error) {
	jobs := map[string]int64{}
	_, err := e.query(ctx, users, func(version int, _ *[]any) (string, string) {
		return ", w.job, w.users", "LEFT JOIN (SELECT old_system AS job, count(*) AS users FROM " + users.table(version) +
			" WHERE old_system <> '' GROUP BY old_system) w ON true"
	}, func(v [][]byte) error {
		if v[0] != nil {
			jobs[string(v[0])] = readInt8(v[1])
		}
		return nil
	})
	return jobs, err
}
