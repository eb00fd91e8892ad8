package importer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strconv"

	"golang.org/x/sync/errgroup"

	"github.com/muster-id/muster/domain"
	"github.com/muster-id/muster/eventstore"
)

// Undone is what an undo came to.
type Undone struct {
	// Removed is how many users were removed, by this call or an earlier one.
	Removed int64 `json:"removed"`
	// Kept is how many stay, because they have been changed since.
	Kept int64 `json:"kept"`
}

// Undo removes exactly the users that a job created and that nobody has changed
// since: those whose stream ends where the import left it. It can be repeated,
// and goes on after an interruption. The job takes no more lines afterwards.
func (j *Jobs) Undo(ctx context.Context, caller Caller, id string) (Undone, error) {
	job, err := j.Get(ctx, caller.Org, id)
	switch {
	case err != nil:
		return Undone{}, err
	case job.DryRun:
		return Undone{}, errJobDry
	}
	r, err := j.hold(ctx, id)
	if err != nil {
		return Undone{}, storeError(err)
	}
	defer r.Close()
	r.caller = caller
	if r.job, err = j.Get(ctx, caller.Org, id); err != nil { // as it is now that nobody is at work on it
		return Undone{}, err
	}
	var done Undone
	err = j.Answers(ctx, caller.Org, id, false, func(lines []byte) error {
		n, err := r.undo(ctx, lines)
		done.Removed += n.Removed
		done.Kept += n.Kept
		return err
	})
	if err != nil {
		return done, storeError(err)
	}
	now := j.Importer.Now()
	if err := r.conclude(ctx, now, domain.ImportUndone{Removed: done.Removed, Kept: done.Kept}); err != nil {
		return done, storeError(err)
	}
	if _, err := r.conn.Exec(ctx, `UPDATE import_jobs SET state = 'undone', removed = $2, updated_at = $3 WHERE id = $1`, id, done.Removed, now); err != nil {
		return done, storeError(err)
	}
	return done, nil
}

// undo removes the users that some answers name.
func (r *Run) undo(ctx context.Context, lines []byte) (Undone, error) {
	store := r.jobs.Importer.Store
	made := map[string]int64{} // by user, the sequence after the import
	var ids []string
	for line := range bytes.Lines(lines) {
		if !bytes.Contains(line[:min(len(line), 64)], []byte(`"outcome":"created"`)) {
			continue
		}
		var answer struct {
			UserID  string `json:"userId"`
			Details struct {
				Sequence string `json:"sequence"`
			} `json:"details"`
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return Undone{}, err
		}
		n, err := strconv.ParseInt(answer.Details.Sequence, 10, 64)
		if err != nil {
			return Undone{}, err
		}
		made[answer.UserID] = n
		ids = append(ids, answer.UserID)
	}
	heads, err := store.Heads(ctx, ids)
	if err != nil {
		return Undone{}, err
	}
	decisions := make([]*eventstore.Append, len(ids))
	gone := make([]bool, len(ids))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, id := range ids {
		// One event more may be our own removal.
		if over := heads[id].Sequence - made[id]; over < 0 || over > 1 {
			continue
		}
		g.Go(func() error {
			u, err := r.user(gctx, id)
			if err != nil {
				return err
			}
			if !u.Exists() {
				gone[i] = u.Sequence == made[id]+1
				return nil
			}
			if u.Sequence != made[id] {
				return nil
			}
			d, err := u.Remove()
			if err != nil {
				return err
			}
			a := toAppend(d, r.caller.ID, r.jobs.Importer.Now())
			decisions[i] = &a
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return Undone{}, err
	}
	var done Undone
	var appends []eventstore.Append
	for i, a := range decisions {
		switch {
		case a != nil:
			appends = append(appends, *a)
		case gone[i]:
			done.Removed++
		default:
			done.Kept++
		}
	}
	for _, out := range store.AppendMany(ctx, appends) {
		var sequence *eventstore.SequenceError
		switch {
		case out.Err == nil:
			done.Removed++
		case errors.As(out.Err, &sequence):
			done.Kept++ // changed just now
		default:
			return done, out.Err
		}
	}
	return done, nil
}
