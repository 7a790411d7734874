package operate

import "context"

// Export calls each with every event that a filter chooses, newest first, with its payload. It reads
// page by page, so that its memory is bounded: an event that changes meanwhile may be missed or come
// twice.
func Export(ctx context.Context, db DB, f Filter, each func(Event) error) error {
	o := ListOptions{Limit: exportPage, Payload: true}
	for {
		page, err := List(ctx, db, f, o)
		if err != nil {
			return err
		}
		for i := range page.Events {
			if err := each(page.Events[i]); err != nil {
				return err
			}
		}
		if o.Cursor = page.Next; o.Cursor == "" {
			return nil
		}
	}
}

// exportPage is the most events of a page. List ends it earlier if the payloads are large.
const exportPage = 500
