package consumers

import _ "embed"

var (
	//go:embed sql/acquire.sql
	sqlAcquire string
	//go:embed sql/renew.sql
	sqlRenew string
	//go:embed sql/heartbeat.sql
	sqlHeartbeat string
	//go:embed sql/checkpoint.sql
	sqlCheckpoint string
	//go:embed sql/release.sql
	sqlRelease string
	//go:embed sql/set_aside.sql
	sqlSetAside string
	//go:embed sql/begin_drains.sql
	sqlBeginDrains string
	//go:embed sql/drain_progress.sql
	sqlDrainProgress string
	//go:embed sql/end_drain.sql
	sqlEndDrain string
	//go:embed sql/park_killers.sql
	sqlParkKillers string
	//go:embed sql/record_starts.sql
	sqlRecordStarts string
	//go:embed sql/strike_out.sql
	sqlStrikeOut string
	//go:embed sql/list.sql
	sqlList string
)
