module ground

go 1.19
