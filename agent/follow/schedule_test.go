package follow

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSchedule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		random float64
		ttl    time.Duration
		want   time.Duration
	}{
		{"end of the TTL", 0, time.Minute, time.Minute},
		{"half of it more", 1, time.Minute, 90 * time.Second},
		{"a quarter more", 0.5, time.Minute, 75 * time.Second},
		{"no TTL", 0, 0, 30 * time.Second},
		{"short TTL with jitter", 1, time.Second, 45 * time.Second},
		{"a TTL of 68 years", 0, (1<<31 - 1) * time.Second, time.Hour},
	} {
		s := &Schedule{Random: func() float64 { return tt.random }}
		if got := s.Answered(tt.ttl); got != tt.want {
			t.Errorf("%s: Answered(%v) = %v; want %v", tt.name, tt.ttl, got, tt.want)
		}
	}
}

func TestBackOff(t *testing.T) {
	t.Parallel()
	s := &Schedule{Random: func() float64 { return 0 }}
	var got []time.Duration
	for range 9 {
		got = append(got, s.Faulty())
	}
	s.Answered(time.Minute)
	got = append(got, s.Faulty())
	const second = time.Second
	want := []time.Duration{30 * second, 60 * second, 120 * second, 240 * second, 480 * second, 960 * second, 1920 * second, 3600 * second, 3600 * second, 30 * second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Faulty, and after an answer (-want +got):\n%s", diff)
	}
	for range 100 {
		s.Faulty()
	}
	if got := s.Faulty(); got != time.Hour || s.Faults() != 32 {
		t.Errorf("after a hundred faults: %v, %d counted", got, s.Faults())
	}
	odd := &Schedule{Floor: 2 * time.Hour, Random: func() float64 { return 0 }}
	if got := odd.Faulty(); got != 2*time.Hour {
		t.Errorf("a floor above the ceiling: %v", got)
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancelCause(t.Context())
		begun := time.Now()
		var at []time.Duration
		poll := make(chan struct{}, 1)
		s := &Schedule{Random: func() float64 { return 0 }}
		done := make(chan error)
		go func() {
			done <- s.Run(ctx, poll, func(context.Context) (time.Duration, error) {
				at = append(at, time.Since(begun))
				switch len(at) {
				case 2, 3, 4:
					return 0, errors.New("no news")
				}
				return time.Minute, nil
			})
		}()
		time.Sleep(5 * time.Minute)  // 0, 1:00, 1:30, 2:30, 4:30
		poll <- struct{}{}           // 5:00
		time.Sleep(90 * time.Second) // 6:00
		end := errors.New("the end")
		stop(end)
		if err := <-done; !errors.Is(err, end) {
			t.Errorf("Run = %v", err)
		}
		const second = time.Second
		want := []time.Duration{0, 60 * second, 90 * second, 150 * second, 270 * second, 300 * second, 360 * second}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("looked at (-want +got):\n%s", diff)
		}
	})
}

func TestRunEndsInLook(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	s := &Schedule{Random: func() float64 { return 0 }}
	err := s.Run(ctx, nil, func(ctx context.Context) (time.Duration, error) {
		stop()
		<-ctx.Done()
		return 0, ctx.Err()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
}
