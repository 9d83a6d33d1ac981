package capture_test

const captureEnv = "CAPTURE_TEST_CAPTURE"

func runCaptureProcess(string) error { return nil }
