package trigger_test

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/rowhook/rowhook/trigger"
)

// A trigger that leaves out what has a default, as an entry of rowhook.yaml does.
func ExampleDefaultSpec() {
	spec := trigger.DefaultSpec()
	spec.Name, spec.Table = "order_placed", "public.orders"
	spec.On.Insert = true
	spec.Webhook.URL = "${ORDERS_URL}/hooks/orders"

	fmt.Println(spec.Name, spec.Table, spec.Webhook.Timeout, spec.Retry.Limit, spec.Retry.Interval, spec.Retry.Backoff)
	// Output: order_placed public.orders 1m 12 10s exponential
}

// A trigger whose every key is set. Its JSON form is what the database holds.
func ExampleSpec() {
	spec := trigger.Spec{
		Name:  "order_paid",
		Table: "public.orders",
		On: trigger.On{
			Insert: true,
			Update: trigger.UpdateOn{Enabled: true, Columns: []string{"status"}},
		},
		When:    "new.status = 'paid'",
		Payload: trigger.Payload{Columns: []string{"id", "status"}},
		Webhook: trigger.Webhook{
			URL:     "https://shop.example.com/hooks/orders",
			Headers: map[string]string{"Authorization": "Bearer ${ORDERS_TOKEN}"},
			Timeout: trigger.Duration(5 * time.Second),
			Secret:  "${ORDERS_SECRET}",
		},
		Retry: trigger.Retry{
			Limit:       10,
			Interval:    trigger.Duration(time.Second),
			Backoff:     trigger.BackoffExponential,
			MaxInterval: trigger.Duration(time.Hour),
		},
		Concurrency: 8,
		Notify:      trigger.NotifyAuto,
	}
	text, err := json.MarshalIndent(spec, "", "  ")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(text))
	fmt.Println("a claimed event belongs to its dispatcher for", spec.Webhook.Lease())
	// Output:
	// {
	//   "name": "order_paid",
	//   "table": "public.orders",
	//   "on": {
	//     "insert": true,
	//     "update": {
	//       "columns": [
	//         "status"
	//       ]
	//     }
	//   },
	//   "when": "new.status = 'paid'",
	//   "payload": {
	//     "columns": [
	//       "id",
	//       "status"
	//     ]
	//   },
	//   "webhook": {
	//     "url": "https://shop.example.com/hooks/orders",
	//     "headers": {
	//       "Authorization": "Bearer ${ORDERS_TOKEN}"
	//     },
	//     "timeout": "5s",
	//     "secret": "${ORDERS_SECRET}"
	//   },
	//   "retry": {
	//     "limit": 10,
	//     "interval": "1s",
	//     "backoff": "exponential",
	//     "max_interval": "1h"
	//   },
	//   "concurrency": 8,
	//   "notify": "auto"
	// }
	// a claimed event belongs to its dispatcher for 35s
}

func ExampleParseDuration() {
	for _, text := range []string{"250ms", "1h30m", "2w", "90", "7 days"} {
		d, err := trigger.ParseDuration(text)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(d, "is", d.Std())
	}
	// Output:
	// 250ms is 250ms
	// 1h30m is 1h30m0s
	// 14d is 336h0m0s
	// "90" is not a duration (no unit): write it like 250ms, 10s, 1h30m or 7d
	// "7 days" is not a duration (not understood): write it like 250ms, 10s, 1h30m or 7d
}

func ExampleParseSize() {
	size, err := trigger.ParseSize("20GiB")
	fmt.Println(size, int64(size), err)
	_, err = trigger.ParseSize("20GB")
	fmt.Println(err)
	// Output:
	// 20GiB 21474836480 <nil>
	// "20GB" is not a size: write a whole number with a unit, as in 512MiB or 20GiB
}

// Secrets stay in the environment. The configuration holds only their names.
func ExampleExpandReferences() {
	environment := map[string]string{"ORDERS_URL": "https://shop.example.com"}
	lookup := func(name string) (string, bool) {
		value, ok := environment[name]
		return value, ok
	}
	url, err := trigger.ExpandReferences("${ORDERS_URL}/hooks/orders", lookup)
	fmt.Println(url, err)
	_, err = trigger.ExpandReferences("Bearer ${ORDERS_TOKEN}", lookup)
	fmt.Println(err)
	// Output:
	// https://shop.example.com/hooks/orders <nil>
	// environment variable ORDERS_TOKEN is not set
}
