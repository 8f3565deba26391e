package imagebuild

// Progress is told what Write is doing. Implementations must be safe for
// calls from several goroutines.
type Progress interface {
	// Start begins a stage of total bytes (0 where that is not known).
	Start(stage string, total int64) Stage
}

// Stage is one running piece of work; exactly one End follows.
type Stage interface {
	Set(done int64)
	End(err error)
}

// NoProgress throws everything away.
type NoProgress struct{}

// Start returns a stage that does nothing.
func (NoProgress) Start(string, int64) Stage { return noStage{} }

type noStage struct{}

func (noStage) Set(int64) {}
func (noStage) End(error) {}
